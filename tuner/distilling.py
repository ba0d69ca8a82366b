"""A student is trained on what a vote answers: the teacher is asked, a run is laid out that holds its answers, and searched as any other.

The run is a search that has begun and has no trial yet, with the split of the teacher's, so that all that resumes, races, refits and votes
is what does so for every search.
"""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from search_spaces.errors import UserError
from search_spaces.schema import Space, flat, nested
from search_spaces.write import space_text
from trainables.card import read_card
from trainables.commands import typed
from trainables.console import document
from trainables.data.images import DataError
from trainables.data.layouts.reading import read_images
from trainables.data.teacher import Unseen
from trainables.extensions import FOLDER, hashes, write_copies
from trainables.mirror import local_folder
from trainables.models.settings import weights_file
from trainables.record import SPACE, SPLIT, TEACHER, Record, RunError, find_run, list_trials, open_run, write_run
from trainables.restore_data import EXTRA, restore_split, teacher_hash
from trainables.storage import Folder, open_folder, remove_tree, write_atomically
from tuner import preflight
from tuner.cli import Options, Start
from tuner.lock import show_lock
from tuner.prepare import data_folder, decode, load_extensions, read_the_space, settings_of
from tuner.runs import Earlier, claim, numbered, open_earlier, refuse_changes
from tuner.searching import search
from tuner.surroundings import gpus_here

# They import torch, or what a mistake is told without.
if TYPE_CHECKING:
    from analysis.evaluation.answering import Answering
    from trainables.data.teacher import Teacher

RUN_OF_ONE: dict[str, Any] = {"trials": 1, "pruner": "none", "probe": False, "finalists": 0, "keep_running": 0.0}


@dataclass(frozen=True)
class Asked:
    """The teacher, and the run that it lies in."""

    folder: Folder  # of the ensemble
    answering: "Answering"
    searched: Earlier


def distill(ensemble: str | None, backbone: str | None, images: Path | None, options: Options, console: Console, start: Start) -> int:
    """Run the command and return its exit code.

    Args:
        images: a folder of images without labels, or None.
        options: `space` is the student's, `resume` a student's run.
        start: begins to start Ray.
    Raises: UserError for what the user can fix. No run is left then that was not there.
    """
    refuse_options(ensemble, backbone, images, options)
    if options.resume:
        run, new = find_run(options.resume), False
        if not open_run(run).student_of:
            raise RunError(f"{run} is no student's run; resume it with: {typed(f'tuner.run --resume {shlex.quote(options.resume)}')}")
    else:
        run, new = lay_out(ensemble or "", backbone, images, options, console), True
    told: dict[str, Any] = {}
    going_on = replace(options, space=None, changes=(), name=None, trials=None, resume=str(run))
    try:
        code = search(going_on, console, start, tell=told.update)
    except UserError:
        if new and not list_trials(run):
            remove_tree(run)
        raise
    if not code:
        from tuner.keeping import answer

        told["student"] = answer(run, console)
    document(told)
    return code


def refuse_options(ensemble: str | None, backbone: str | None, images: Path | None, options: Options) -> None:
    """Raises: RunError naming all options that do not go together."""
    given = {
        "--ensemble": ensemble,
        "--backbone": backbone,
        "--space": options.space,
        "--images": images,
        "--trials": options.trials,
        "--set": options.changes,
        "--name": options.name,
    }
    named = [option for option, value in given.items() if value]
    mistakes = []
    if options.resume and named:
        mistakes.append(f"--resume keeps what was chosen when the student began; remove {', '.join(named)}")
    if not options.resume and not ensemble:
        mistakes.append("give --ensemble (the folder of the vote that teaches, runs/<run>/ensemble), or --resume (a student's run)")
    if ensemble and ensemble.endswith(".csv"):
        mistakes.append(
            f"--ensemble {ensemble} is a table of answers: a vote over files has no models to ask. Give the folder of an ensemble"
        )
    if backbone and options.space:
        mistakes.append("--backbone changes the network of the best single model, --space says all about a student; give one of them")
    if options.trials and not options.space and not options.resume:
        mistakes.append("--trials is for --space; without one there is a single student")
    if mistakes:
        raise RunError("\n".join(mistakes))


# The teacher


def open_teacher(ensemble: str) -> Asked:
    """The ensemble, and the run whose images it answers. Raises: RunError, ExtensionError, NewerFormatError."""
    from analysis.evaluation.answering import open_ensemble
    from analysis.evaluation.fitted_ensemble import FILE, folder_of, run_of

    folder = folder_of(open_folder(ensemble))
    run = run_of(folder)
    if (folder / FILE).is_file() and not (run / "run.json").is_file():
        raise RunError(f"{folder} is in no run: its split and its images say what a student may learn. Give runs/<run>/ensemble")
    answering = open_ensemble(folder)
    return Asked(folder, answering, open_earlier(str(run)))


def ask(asked: Asked, images: Path | None, options: Options, console: Console) -> "Teacher":
    """What the teacher answers. Raises: RunError, DataError."""
    from analysis.evaluation.answering import choose_device
    from analysis.evaluation.teaching import teach
    from analysis.members.predictions import Source, wanted_views
    from analysis.predict.job import find_images, named

    answering, searched = asked.answering, asked.searched
    settings = read_card(answering.trials[0].models[0]).config.data
    views = wanted_views(answering.trials)
    found = None
    if images is not None:
        scheme = searched.card.scheme
        if answering.content.pipeline.scheme != scheme:
            answered = ", ".join(answering.content.pipeline.scheme.names)
            raise RunError(f"--images {images}: the teacher answers {answered} alone, of {', '.join(scheme.names)}; leave it out")
        found = find_images(local_folder(str(images), whole=False), None, option="--images")
    own, files = decode(read_images(data_folder(options, searched, console), settings), views, True, console)
    own, split = restore_split(searched.run, searched.card, own, files.digests, settings.fold)
    device, unseen = choose_device(), Unseen()
    if found is not None:
        from analysis.command import decode as decoded

        others = decoded(found, views)
        ids = tuple(name for name in found.ids if name not in others.bad)
        if not ids:
            raise DataError(f"--images {images}: none of the {len(found.ids)} files can be used as an image: {named(others.bad)[0]}")
        if others.bad:
            console.print(f"{len(others.bad)} files of --images cannot be used: {', '.join(named(others.bad)[:5])}", style="yellow")
        answers = answering.answer(Source(others, ids), device, words="the teacher answers the images without labels")
        digests = tuple(others.digests[name] for name in ids)
        unseen = Unseen(found.root.resolve(), ids, digests, answers)
    return teach(answering, own, split, files, unseen, device)


def told_words(teacher: "Teacher") -> list[str]:
    """How many images the teacher answered, and by what."""
    count, clean = len(teacher.ids), int(teacher.out_of_fold.sum())
    lines = [f"The teacher answers {count:,} images of the run, {clean:,} of them out of fold: by models that did not train on them."]
    if clean < count:
        lines.append(
            f"The other {count - clean:,} it answers by models that trained on them, so it is surer of these than it is of new images. "
            "To have a model for each fold, race the search's finalists (tuner.race) and vote again."
        )
    if teacher.unseen.ids:
        lines.append(f"It answers {len(teacher.unseen.ids):,} images without labels, too.")
    return lines


# The student


def best_single(asked: Asked) -> Record:
    """The trained trial, of those that answer for all that the teacher does, with the best score on validation.

    Raises: RunError where there is none.
    """
    from tuner.keeping import singles_of

    found = [trial for trial in singles_of(asked.folder, asked.answering.content) if not trial.record.config.model.is_probe]
    if not found:
        raise RunError(f"{asked.searched.run} has no trained trial that predicts all targets, to make a student like it; give --space")
    return found[0].record


def like(record: Record, backbone: str | None, changes: tuple[str, ...]) -> dict[str, Any]:
    """The settings, nested, of a student that is trained as a trial was, on soft targets: by cross-entropy, which has its minimum there.

    Raises: RunError where the weights that the trial began with are not those of the backbone.
    """
    config = record.config
    values = flat(config.values())
    own = {path: value for path, value in values.items() if "/" in path and not path.startswith(("loss/", "data/"))}
    own |= {path: values[path] for path in ("task", "normalize")} | {"loss/name": "cross_entropy", "labels/teacher": 1.0}
    own |= {} if config.data.pseudo else {"labels/confidence": 0.0}
    if not config.model.is_zero_shot:
        del own["model/texts"]
    if backbone and backbone != config.model.backbone:
        weights = config.model.weights
        is_file = weights_file(weights, backbone) is not None and "{backbone}" not in weights
        if is_file and not any(change.startswith("model/weights=") for change in changes):
            raise RunError(
                f"--backbone {backbone}: the best single model began with {weights}, which are weights of {config.model.backbone}. "
                "Say with what this one begins: --set model/weights=FILE, or imagenet, or none"
            )
        own |= {"model/backbone": backbone}
    return nested(own)


def student_options(asked: Asked, backbone: str | None, options: Options) -> Options:
    """The options with the student's space. Raises: RunError."""
    if options.space:
        return options
    record = best_single(asked)
    run = RUN_OF_ONE | {"epochs": record.config.epochs, "grace": 1} | metric_of_search(asked.searched)
    data = {"data": nested(data_of_search(asked)).get("data", {})}
    return replace(options, space={"run": run, **data, **like(record, backbone, options.changes)})


def data_of_search(asked: Asked) -> dict[str, Any]:
    """The settings of the section `data` that the search has, by path: as its space says them, or where that is gone its models."""
    space = asked.searched.space
    if space:
        return {path: value for path, value in space.fixed.items() if path.startswith("data/")}
    return flat({"data": read_card(asked.answering.trials[0].models[0]).config.data.model_dump(mode="json")})


def metric_of_search(searched: Earlier) -> dict[str, Any]:
    """By what the search chooses, as its section `run` says it."""
    run = searched.space.run if searched.space else {"metric": searched.card.metric}
    return {name: run[name] for name in ("metric", "costs", "also") if name in run}


def of_the_search(space: Space, asked: Asked) -> Space:
    """A student's space with the images, the split and the metric of the search where it names none. It is not probed nor raced unasked."""
    everywhere = {"labels/confidence": 0.0} if not any(one.path == "labels/confidence" for one in space.parameters) else {}
    found = replace(space, fixed=everywhere | data_of_search(asked) | dict(space.fixed))
    return found.with_run({"probe": False, "finalists": 0, **metric_of_search(asked.searched), **space.run})


def lay_out(ensemble: str, backbone: str | None, images: Path | None, options: Options, console: Console) -> Folder:
    """Ask the teacher, and make the student's run. Raises: UserError for what the user can fix."""
    asked = open_teacher(ensemble)
    searched = asked.searched
    options = student_options(asked, backbone, options)
    extensions = load_extensions(options, searched)
    space = of_the_search(read_the_space(options, searched, gpus_here() > 0), asked)
    refuse_changes(searched.card, searched.space, space, None)
    settings = settings_of(options, space, None)
    predicts = preflight.covered_targets(preflight.tasks_of(space), searched.card.scheme)
    answered = asked.answering.content.pipeline.scheme.names
    if not set(answered) <= set(predicts):
        raise RunError(
            f"the student predicts {', '.join(predicts)}, and the teacher answers {', '.join(answered)}; correct task in the space"
        )
    stem = f"{searched.run.name}-student"
    show_lock(searched.run.parent, console)
    with claim(searched.run.parent, options.name, numbered(stem, first=stem)) as run:
        called = f"{searched.run.name}/{asked.folder.name}"
        console.print(Text.assemble((run.name, "bold"), f": a student of {called}"))
        teacher = ask(asked, images, options, console)
        for line in told_words(teacher):
            console.print(line, soft_wrap=True)
        content = teacher.pack()
        write_atomically(run / TEACHER, content)
        for file in (SPLIT, EXTRA):
            if (searched.run / file).is_file():
                write_atomically(run / file, (searched.run / file).read_bytes())
        write_copies(run, extensions)
        copies = [f"{FOLDER}/{one.name}" for one in extensions]
        whole = space.with_run(settings.model_dump(exclude={"early_stopping"}))
        write_atomically(run / SPACE, space_text(whole, f"The student of {called}.", copies).encode())
        card = replace(
            searched.card,
            name=run.name,
            space="student" if not isinstance(options.space, str) else space.name,
            epochs=settings.epochs,
            trials=settings.trials,
            command=shlex.join(["python", "-m", "tuner.distill", *sys.argv[1:]]),
            predicts=predicts,
            refit_of="",
            origins=(),
            extensions=hashes(extensions),
            student_of=called,
            teacher=teacher_hash(content),
            cpus_per_trial=options.cpus_per_trial,
            gpus_per_trial=options.gpus_per_trial,
        )
        # Last: from here on it is a run.
        write_run(run, card)
    return run
