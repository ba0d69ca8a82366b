"""A fitted answer: everything between what the trials predict and one class an image, as plain values that a file can hold."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from analysis.evaluation.calibration import Calibration
from analysis.evaluation.margin import Margin
from analysis.evaluation.steps import Step
from analysis.members.compose import Member, Predicted
from analysis.members.mc_dropout import pass_number
from analysis.members.predictions import TrialModels
from analysis.members.tta import TRANSFORMS
from analysis.votes import Ensemble
from analysis.votes.arrays import Array, library
from trainables.commands import typed
from trainables.data.targets import Scheme, no_answer
from trainables.extensions import loaded, open_copies, write_copies
from trainables.record import DAMAGE, RunError, name_of, read_json, write_json
from trainables.storage import Folder, StorageError, open_folder

FILE = "ensemble.json"
REMOVED = "boosted"  # a kind of vote that earlier versions fitted


@dataclass(frozen=True)
class Pipeline:
    """Members, their vote, and what comes before and after it."""

    scheme: Scheme
    members: tuple[Member, ...]
    ensemble: Ensemble
    # Transforms of test-time augmentation, in TRANSFORMS, or passes of Monte Carlo dropout; averaged for each trial.
    looks: tuple[str, ...] = ("plain",)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)  # by trial; empty: none is calibrated
    steps: tuple[Step, ...] = ()
    margin: Margin | None = None  # a rule that is given, before these steps

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the trials that it takes."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.trials))

    def __call__(self, predicted: Predicted) -> Array:
        """Scores (images, classes) whose rows sum to 1 and whose highest is the answer, of what the trials predict over its transforms."""
        tempered = {
            name: self.calibrations[name](predicted[name]) if name in self.calibrations else predicted[name] for name in self.trials
        }
        answers = [member.answer(tempered) for member in self.members]
        voters = self.margin.before(answers) if self.margin else answers
        answer = self.ensemble(library(answers[0]).stack(list(voters)))
        if self.margin:
            answer = self.margin.after(answer, answers)
        for step in self.steps:
            answer = step(answer)
        return answer


@dataclass(frozen=True)
class EnsembleFile:
    """What `ensemble.json` holds."""

    models: Mapping[str, tuple[str, ...]]  # by trial: its files of weights, from the folder that holds the runs, or by their addresses
    pipeline: Pipeline
    extensions: Mapping[str, str] = field(default_factory=dict)  # sha256 of each file that the models or the vote need, by name


ENSEMBLE_FILE = TypeAdapter(EnsembleFile)
EXTENSIONS = TypeAdapter(dict[str, str])


def write_ensemble(folder: Folder, content: EnsembleFile) -> None:
    """Write the file, completely or not at all."""
    write_json(folder / FILE, ENSEMBLE_FILE.dump_python(content, mode="json", by_alias=True))


def read_ensemble(folder: Folder) -> EnsembleFile:
    """What an ensemble's folder holds, after its extensions were executed in this process.

    Raises: RunError where it is missing or damaged; NewerFormatError; ExtensionError, see `open_copies`.
    """
    file = folder / FILE
    again = maker(folder)
    try:
        values = read_json(file, "ensemble")
        open_copies(folder, EXTENSIONS.validate_python(values.get("extensions", {})))
        content = ENSEMBLE_FILE.validate_python(values)
        _refuse_misfits(content)
    except (RunError, StorageError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{file} is not there. Give the folder that holds it, runs/<run>/ensemble, which {again} writes") from None
    except ValidationError as error:
        if any(one.get("ctx", {}).get("tag") == REMOVED for one in error.errors()):
            raise RunError(f"{file}: its vote is {REMOVED} (--vote boost), which this version no longer has. Vote again: {again}") from None
        found = "; ".join(f"{'/'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise RunError(f"{file} is damaged ({found}). Restore it from a backup, or write it again: {again}") from None
    except (*DAMAGE, IndexError, ArithmeticError) as error:
        raise RunError(
            f"{file} is damaged ({type(error).__name__}: {error}). Restore it from a backup, or write it again: {again}"
        ) from None
    return content


def ensemble_hash(folder: Folder) -> str:
    """The sha256 of an ensemble's file: which answer this is."""
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()


def maker(folder: Folder) -> str:
    """The command that writes an ensemble's folder."""
    whole = folder.resolve()
    return typed(f"analysis.ensemble --run {name_of(whole.parent) if whole.name == 'ensemble' else 'RUN'}")


def folder_of(named: Folder) -> Folder:
    """The folder of an ensemble, which may be named by its file."""
    return named.parent if named.name == FILE else named


def run_of(folder: Folder) -> Folder:
    """The folder of the run that the folder of an ensemble lies in, if it lies in one."""
    return folder.parent if folder.name not in ("", "..") else folder.resolve().parent


def location_of(model: Folder, root: Folder) -> str:
    """How an ensemble's file names a file of weights: by its path from the folder of all runs, or in an object store by its address."""
    return os.path.relpath(model.resolve(), root) if isinstance(model, Path) and isinstance(root, Path) else str(model.resolve())


def model_files(folder: Folder, content: EnsembleFile) -> dict[str, tuple[Folder, ...]]:
    """Where the files of weights of each trial lie, for an ensemble in a folder; whether they are there is not asked."""
    root = folder.resolve().parent.parent
    return {name: tuple(open_folder(text) if "://" in text else root / text for text in texts) for name, texts in content.models.items()}


def pack_ensemble(folder: Folder, content: EnsembleFile, to: Path) -> Path:
    """Copy an ensemble and its weights below `to`, which then holds all that predicting takes, wherever it is moved; returns its folder."""
    kept = {}
    for name, files in model_files(folder, content).items():
        kept[name] = tuple(f"models/{name}-{number}.safetensors" for number in range(len(files)))
        for file, text in zip(files, kept[name], strict=True):
            (to / text).parent.mkdir(parents=True, exist_ok=True)
            (to / text).write_bytes(file.read_bytes())
    packed = to / "answer" / "ensemble"
    packed.mkdir(parents=True)
    write_copies(packed, loaded(content.extensions))
    write_ensemble(packed, replace(content, models=kept))
    return packed


def read_trial_models(folder: Folder, content: EnsembleFile) -> list[TrialModels]:
    """What answers for the trials of an ensemble that lies in a folder.

    Raises: RunError naming every file of weights that is gone, damaged or of other labels than the ensemble, with the fix.
    """
    mistakes = [
        f"there is no transform of test-time augmentation named {look}; there are {', '.join(TRANSFORMS)}"
        for look in content.pipeline.looks
        if look not in TRANSFORMS and not pass_number(look)
    ]
    found = []
    files = model_files(folder, content)
    for name in content.pipeline.trials:
        try:
            one = TrialModels.read(name, files[name])
        except RunError as error:
            mistakes.append(str(error))
            continue
        found.append(one)
        parts = [part for member in content.pipeline.members for part in member.all_parts if part.trial == name]
        if any(part.scheme != one.task.scheme for part in parts):
            mistakes.append(f"{one.models[0]}: the weights of {name} have other classes than the ensemble was made of")
    if mistakes:
        fix = f"Restore the files from a backup, or let others vote: {maker(folder)}"
        raise RunError("\n".join([*mistakes, fix]))
    return found


def _refuse_misfits(content: EnsembleFile) -> None:
    """Raises: ValueError where the parts of an answer do not fit each other."""
    pipeline = content.pipeline
    bare = [name for name in pipeline.trials if not content.models.get(name)]
    mistakes = [f"no weights are named for {', '.join(bare)}"] if bare else []
    mistakes += [] if pipeline.members and pipeline.looks else ["it has no members or no transforms"]
    if pipeline.margin and len(pipeline.margin.images) != pipeline.scheme.classes:
        mistakes.append(f"its margin rule is for {len(pipeline.margin.images)} classes, of {pipeline.scheme.classes}")
    if mistakes:
        raise ValueError("; ".join(mistakes))
    parts = [part for member in pipeline.members for part in member.all_parts]
    predicted = {part.trial: np.full((1, part.scheme.classes), 1 / part.scheme.classes) for part in parts}
    # Before the steps too: these would hide that a vote's weights are not of its members.
    with np.errstate(all="ignore"):
        answers = replace(pipeline, steps=())(predicted), pipeline(predicted)
    for answer in answers:
        if answer.shape != (1, pipeline.scheme.classes) or no_answer(answer, pipeline.scheme.kind).any():
            raise ValueError(f"it answers for {pipeline.scheme.classes} classes with scores {answer.tolist()}, which are no answer")
