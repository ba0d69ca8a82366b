"""Records: the files of a run and of its trials. They are the truth; everything else can be rebuilt from them.

runs/<run>/run.json          what all its trials share (RunCard)
runs/<run>/space.yaml        the space in effect
runs/<run>/extensions/       copies of the user's own Python files that the space names
runs/<run>/split.csv         every image, its content's hash, and its part: train, a fold, hold-out
runs/<run>/teacher.npz       of a student's run: what its teacher, a vote, answers for the images
runs/<run>/trials/<number>/  config.json, reports.jsonl, result.json, rungs.json, valid.npz, model.safetensors, last/; of some
                             refits first.safetensors

Every file is written completely or not at all, in today's format; reading takes every earlier one (see migrations). A field that is not
known is kept aside, one that is missing has its default. A trial's process writes its record; the driver adds `rungs.json` and, when
the process has ended, the final state in `result.json`.
"""

import io
import json
import shlex
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import TypeAdapter
from safetensors import SafetensorError

from search_spaces.errors import UserError
from trainables.commands import typed
from trainables.config import TrialConfig
from trainables.data.targets import Scheme, read_target
from trainables.extensions import open_copies
from trainables.metrics import DEFAULT
from trainables.migrations import migrated, stamped
from trainables.registry import UnknownEntryError
from trainables.storage import Folder, open_folder, remove_tree, write_atomically

State = Literal["finished", "stopped", "failed", "interrupted"]
Cause = Literal["", "diverged", "memory", "settings", "photo", "crash"]
MODEL = "model.safetensors"
FIRST = "first.safetensors"  # of a refit of the last epochs: the searched trial's model, from which it goes on
LAST = "last/state.pt"  # what is needed to continue, while a trial runs
SPACE = "space.yaml"
SPLIT = "split.csv"
TEACHER = "teacher.npz"  # of a student's run: what its teacher answers
BASELINE = "baseline.json"  # what the best trial gains over the baseline
IN = "."  # as what is trained again: the run that this one is in
FINALISTS = "finalists"  # folder of a search's race, a run of its own
RUNS = Path("runs")
# What reading a damaged file raises.
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error, SafetensorError)


@dataclass(frozen=True)
class Origin:
    """The searched trial whose configuration a trial of a refit was given."""

    trial: int  # its number
    epoch: int  # its best one
    score: float  # its score on validation then


@dataclass(frozen=True)
class RunCard:
    """What all trials of a run share."""

    name: str
    space: str
    data: str  # the folder of the images
    cuts: tuple[int, ...]
    seed: int
    split: str  # hash
    attributes: tuple[Any, ...]  # the scheme, each target plain
    epochs: int
    trials: int
    command: str
    predicts: tuple[str, ...] = ()  # targets that trials predict, each all or some of them
    metric: str = DEFAULT  # in BY_NAME
    also: tuple[str, ...] = ()  # metrics that are reported beside it, by their names
    cpus_per_trial: int | None = None  # as they were asked for; the number of threads decides a sum's last bits
    gpus_per_trial: float | None = None
    # The run whose configurations are trained again: beside this one, elsewhere by its address, or the one it is in (IN); empty: a search.
    refit_of: str = ""
    origins: tuple[Origin, ...] = ()  # of a refit: one for each of its trials, by number
    extensions: Mapping[str, str] = field(default_factory=dict)  # sha256 of each file, by name
    student_of: str = ""  # the folder of the ensemble whose answers its trials learn: below the folder of all runs, or by its address
    teacher: str = ""  # of such a run: the first 16 digits of the sha256 of teacher.npz
    left_out: tuple[str, ...] = ()  # values of the space's start entries that it could not draw, a line for each entry
    aside: Mapping[str, Any] = field(default_factory=dict)  # of run.json, unknown to this version, and written again

    @property
    def scheme(self) -> Scheme:
        return Scheme(tuple(map(read_target, self.attributes)))

    @property
    def predicted(self) -> Scheme:
        """The targets that trials predict, each all or some of them; all of them in runs that did not note it."""
        return self.scheme.part(self.predicts) if self.predicts else self.scheme


@dataclass(frozen=True)
class EpochReport:
    """One line of reports.jsonl."""

    epoch: int  # the first is 1
    train_loss: float
    score: float | None  # by the run's metric, over all targets of its kind; None without a validation split
    accuracy: float | None  # likewise
    target_scores: dict[str, float]  # by the run's metric, of each target alone; empty without a validation split
    lr: float  # of the epoch's last step
    seconds: float  # training and validation
    photos: int  # trained
    distinct: int  # different ones among them
    largest_repeat: int  # how often the one shown most was shown
    images_per_second: float  # trained, validation aside
    peak_memory: float  # MB; of the GPU where there is one, else of the process
    micro_batch: int  # images per forward and backward pass; 0: whole batches
    best_epoch: int  # so far; the newest without a validation split
    last: bool  # the trial ends here by itself
    # How often each joint class of the trial's task, or each tag, was shown; empty for numbers, and where it was not counted.
    shown: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """How a trial ended, in result.json. Until it ends the file says interrupted, which is what a dead process leaves."""

    state: State
    reason: str  # in plain words
    best_epoch: int  # 0 when no epoch was reported
    split: str
    device: str
    code: str
    versions: dict[str, str] = field(default_factory=dict)
    cause: Cause = ""  # of a failure; only a crash is worth another attempt
    attempt: int = 1  # processes that worked on the trial so far
    threads: int = 1  # CPU threads, on whose number a sum's last bits depend
    micro_batch: int = 0  # images a pass, where a batch was too large for the GPU; 0: whole batches
    notes: tuple[str, ...] = ()  # what happened on the way, in plain words
    extensions: dict[str, str] = field(default_factory=dict)  # that its last process had: sha256 of each file, by name


@dataclass(frozen=True)
class Decision:
    """A pruner's decision on a trial at an epoch, in rungs.json."""

    epoch: int
    score: float  # of that epoch, as it was reported
    place: int  # scores that it was compared with
    cutoff: float | None  # computed from these; None where there were too few of them
    passed: bool
    pruner: str = "asha"  # in STOPPERS; the first one was the only one and not named


# They read what a file holds, and find in it what is of another kind.
RESULT = TypeAdapter(Result)
DECISIONS = TypeAdapter(tuple[Decision, ...])
# What a report of an earlier version lacks.
LATER_FIELDS = {one.name: one.default_factory for one in fields(EpochReport) if one.default_factory is not MISSING}


@dataclass(frozen=True)
class Record:
    """One trial as it lies on disk."""

    folder: Folder
    number: int
    config: TrialConfig
    reports: tuple[dict[str, Any], ...]
    result: Result
    decisions: tuple[Decision, ...] = ()
    aside: Mapping[str, Any] = field(default_factory=dict)  # settings of config.json that this version, or the chosen entry, does not have

    @property
    def best(self) -> dict[str, Any]:
        """The report of the best epoch; empty when no epoch was reported."""
        return next((report for report in self.reports if report["epoch"] == self.result.best_epoch), {})

    @property
    def scored(self) -> tuple[str, ...]:
        """The targets, tags, or questions that its score is over."""
        return tuple(self.best.get("target_scores", ()))

    @property
    def seconds(self) -> float:
        """Of training and validation, over all epochs."""
        return sum(report["seconds"] for report in self.reports)

    @property
    def model(self) -> Folder:
        return self.folder / MODEL

    @property
    def has_model(self) -> bool:
        return self.model.is_file()


def ranked(records: Iterable[Record], sign: int) -> list[Record]:
    """The trials that have a score, best first; ties go to the earlier one.

    Where trials predict different targets, whose scores cannot be compared, the best for each come first, then the second best for each,
    and so on; what the first trial predicts comes first.

    Args:
        sign: of the metric, 1 where higher is better.
    """
    scored = [record for record in records if record.best and record.best["score"] is not None]
    alike: dict[tuple[str, ...], list[Record]] = {}
    for record in sorted(scored, key=lambda record: record.number):
        alike.setdefault(record.scored, []).append(record)
    for own in alike.values():
        own.sort(key=lambda record: (-sign * record.best["score"], record.number))
    return [record for turn in zip_longest(*alike.values()) for record in turn if record]


@dataclass(frozen=True)
class Predictions:
    """Validation predictions at the best epoch."""

    ids: tuple[str, ...]
    heads: list[np.ndarray]  # (n, columns) float32 per head: probabilities of its classes or tags, or the number
    epoch: int  # after which the model answered so


class RunError(UserError, ValueError):
    """A run or trial that does not exist or cannot be used; the text says which ones do."""


def find_run(name: str, runs: Folder = RUNS) -> Folder:
    """The folder of a run, by its name below `runs` or by its path or address. Raises: RunError listing the runs that exist."""
    there = open_folder(name)
    for folder in (there,) if "://" in name else (runs / name, there):
        if (folder / "run.json").is_file():
            return folder
    beside = there.parent if "://" in name else runs
    names = sorted(folder.name for folder in list_folders(beside) if (folder / "run.json").is_file())
    there = ", ".join(names) or f"none yet: {typed('tuner.run')} makes one"
    raise RunError(f"there is no run {name!r} in {beside}/; there are {there}")


def name_of(run: Folder) -> str:
    """How a command line names a run, quoted for a shell: by its name if it is in runs/, else by its path or address."""
    return shlex.quote(run.name if run.parent in (RUNS, RUNS.resolve()) else str(run))


def searched_run(run: Folder, card: RunCard) -> Folder:
    """The run whose configurations a refit trains again."""
    if card.refit_of == IN:
        return run.parent
    return open_folder(card.refit_of) if "/" in card.refit_of else run.parent / card.refit_of


def list_folders(folder: Folder) -> list[Folder]:
    """What lies in a folder; nothing where there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []


def write_json(file: Folder, values: Mapping[str, Any]) -> None:
    """Write values with today's format."""
    write_atomically(file, (json.dumps(stamped(values), indent=1) + "\n").encode())


def read_json(file: Folder, kind: str) -> dict[str, Any]:
    """The values of a file of a kind that `migrations` names, in today's format. Raises: one of DAMAGE, NewerFormatError."""
    return migrated(kind, json.loads(file.read_bytes()), file)


def open_run(run: Folder) -> RunCard:
    """What the trials of a run share, after its extensions were executed in this process: they are what its settings may name.

    Raises: RunError when run.json is damaged; ExtensionError, see `open_copies`.
    """
    card = read_run(run)
    open_copies(run, card.extensions)
    return card


def trial_folder(run: Folder, number: int) -> Folder:
    return run / "trials" / str(number)


def start_record(folder: Folder, config: TrialConfig) -> None:
    """Make the trial's folder with its effective settings."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config.values())


def read_config(folder: Folder) -> tuple[TrialConfig, dict[str, Any]]:
    """A trial's settings, and by path those that are kept aside: this version, or the chosen entry, does not have them.

    Raises: one of DAMAGE; ConfigError, which is one, where the settings that are known cannot be trained by this version.
    """
    return TrialConfig.read(read_json(folder / "config.json", "config"))


def write_reports(folder: Folder, reports: Iterable[dict[str, Any]]) -> None:
    write_atomically(folder / "reports.jsonl", "".join(json.dumps(stamped(report)) + "\n" for report in reports).encode())


def read_reports(folder: Folder) -> list[dict[str, Any]]:
    """The reports by epoch, each with at least the fields of an EpochReport that have a default."""
    file = folder / "reports.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    reports = [migrated("report", json.loads(line), file) for line in lines]
    # Behind the others: a report that is written again is the line that it was.
    return [report | {name: empty() for name, empty in LATER_FIELDS.items() if name not in report} for report in reports]


def write_result(folder: Folder, result: Result) -> None:
    write_json(folder / "result.json", asdict(result))


def read_result(folder: Folder) -> Result | None:
    """None where no process has begun the trial."""
    file = folder / "result.json"
    return RESULT.validate_python(read_json(file, "result")) if file.is_file() else None


def write_decisions(folder: Folder, decisions: Iterable[Decision]) -> None:
    write_json(folder / "rungs.json", {"decisions": [asdict(decision) for decision in decisions]})


def read_decisions(folder: Folder) -> tuple[Decision, ...]:
    file = folder / "rungs.json"
    return DECISIONS.validate_python(read_json(file, "decisions")["decisions"]) if file.is_file() else ()


def write_predictions(folder: Folder, predictions: Predictions) -> None:
    buffer = io.BytesIO()
    heads: dict[str, Any] = {f"head{index}": head.astype(np.float32) for index, head in enumerate(predictions.heads)}
    np.savez(buffer, ids=np.array(predictions.ids), epoch=predictions.epoch, **heads)
    write_atomically(folder / "valid.npz", buffer.getvalue())


def read_predictions(folder: Folder) -> Predictions:
    with np.load(io.BytesIO((folder / "valid.npz").read_bytes()), allow_pickle=False) as arrays:
        heads = [arrays[f"head{index}"] for index in range(len(arrays.files) - 2)]
        return Predictions(tuple(arrays["ids"].tolist()), heads, int(arrays["epoch"]))


def write_last(folder: Folder, content: bytes) -> None:
    """Keep what is needed to continue, in place of an earlier epoch's."""
    (folder / LAST).parent.mkdir(exist_ok=True)
    write_atomically(folder / LAST, content)


def read_last(folder: Folder) -> bytes | None:
    return (folder / LAST).read_bytes() if (folder / LAST).is_file() else None


def drop_last(folder: Folder) -> None:
    """Remove what would be needed to continue, if it is there."""
    remove_tree((folder / LAST).parent)


def read_record(folder: Folder) -> Record:
    """The trial in a folder. Raises: one of DAMAGE when its files are damaged."""
    config, aside = read_config(folder)
    result = read_result(folder) or Result("interrupted", "nothing was reported", 0, "", "", "", attempt=0)
    return Record(folder, int(folder.name), config, tuple(read_reports(folder)), result, read_decisions(folder), aside)


def list_trials(run: Folder) -> list[Folder]:
    """The folders of a run's trials by number; one without a complete file is of a trial that never began."""
    folders = [folder for folder in list_folders(run / "trials") if folder.name.isdigit() and _has_begun(folder)]
    return sorted(folders, key=lambda folder: int(folder.name))


def _has_begun(folder: Folder) -> bool:
    return any(not file.name.startswith(".") for file in list_folders(folder))


def read_records(run: Folder) -> list[Record]:
    """The trials of a run by number, but those whose settings choose what this version does not have. Raises: one of DAMAGE."""
    records = []
    for folder in list_trials(run):
        with suppress(UnknownEntryError):
            records.append(read_record(folder))
    return records


def end_record(folder: Folder, state: State, reason: str, cause: Cause = "") -> None:
    """Say how a trial ended, keeping the rest of its result; what is needed to continue stays where it can."""
    file = folder / "result.json"
    if file.is_file():
        write_json(file, read_json(file, "result") | {"state": state, "reason": reason, "cause": cause})
        if state != "interrupted" and cause != "crash":
            drop_last(folder)


def write_run(run: Folder, card: RunCard) -> None:
    run.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = asdict(card)
    write_json(run / "run.json", values.pop("aside") | values)


def read_run(run: Folder) -> RunCard:
    """Raises: RunError when run.json is damaged."""
    try:
        found = read_json(run / "run.json", "run")
        known = {one.name for one in fields(RunCard)} - {"aside"}
        values = {name: value for name, value in found.items() if name in known}
        values |= {name: tuple(values.get(name, ())) for name in ("cuts", "predicts", "also", "left_out")}
        values["attributes"] = tuple(read_target(plain).plain() for plain in values["attributes"])
        values["origins"] = tuple(Origin(**origin) for origin in values.get("origins", ()))
        values["extensions"] = dict(values.get("extensions", {}))
        return RunCard(**values, aside={name: value for name, value in found.items() if name not in known})
    except DAMAGE as error:
        raise RunError(
            f"{run}/run.json is damaged ({type(error).__name__}: {error}); restore it from a backup, or leave this run out"
        ) from None
