"""Records: what remains of a run and of its trials on disk. They are the truth; everything else can be rebuilt from them.

runs/<run>/run.json        what all its trials share (RunCard)
runs/<run>/split.csv       who trains, validates, is held out
runs/<run>/trials/<number>/  config.json, reports.jsonl, result.json, valid.npz, model.safetensors, last/

Every file is written beside and renamed, so it is whole or absent.
"""

import io
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainables.config import TrialConfig
from trainables.data.labels import Attribute, Scheme

State = Literal["finished", "stopped", "failed", "interrupted"]
MODEL = "model.safetensors"
LAST = "last/state.pt"  # what is needed to continue, while a trial runs
RUNS = Path("runs")


@dataclass(frozen=True)
class RunCard:
    """What all trials of a run share."""

    name: str
    space: str
    data: str  # the folder of the photos
    cuts: tuple[int, ...]
    seed: int
    split: str  # hash
    attributes: tuple[tuple[str, tuple[str, ...]], ...]  # the scheme: name and values of each
    epochs: int
    trials: int
    command: str

    @property
    def scheme(self) -> Scheme:
        return Scheme(tuple(Attribute(name, tuple(values)) for name, values in self.attributes))


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


@dataclass(frozen=True)
class Record:
    """One trial as it lies on disk."""

    folder: Path
    number: int
    config: TrialConfig
    reports: tuple[dict[str, Any], ...]
    result: Result

    @property
    def best(self) -> dict[str, Any] | None:
        """The report of the best epoch, or None when no epoch was reported."""
        return next((report for report in self.reports if report["epoch"] == self.result.best_epoch), None)

    @property
    def has_model(self) -> bool:
        return (self.folder / MODEL).is_file()


@dataclass(frozen=True)
class Predictions:
    """Validation predictions at the best epoch."""

    ids: tuple[str, ...]
    heads: list[np.ndarray]  # (n, classes) float32 per head


class RunError(ValueError):
    """A run or trial that is not there or cannot be used; the text says what is."""


def find_run(name: str, runs: Path = RUNS) -> Path:
    """The folder of a run, by its name below `runs` or by its path. Raises: RunError listing the runs that exist."""
    for folder in (runs / name, Path(name)):
        if (folder / "run.json").is_file():
            return folder
    there = sorted(file.parent.name for file in runs.glob("*/run.json"))
    raise RunError(f"there is no run {name!r} in {runs}/; there are {', '.join(there) or 'none yet: python -m tuner.run makes one'}")


def write_whole(file: Path, content: bytes) -> None:
    """Write beside and rename, so that a reader finds the old file or the new one."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    write_whole(file, (json.dumps(value, indent=1) + "\n").encode())


def trial_folder(run: Path, number: int) -> Path:
    return run / "trials" / str(number)


def start_record(folder: Path, config: TrialConfig) -> None:
    """Make the trial's folder with its effective settings."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config.values())


def write_reports(folder: Path, reports: list[dict[str, Any]]) -> None:
    write_whole(folder / "reports.jsonl", "".join(json.dumps(report) + "\n" for report in reports).encode())


def write_result(folder: Path, result: Result) -> None:
    write_json(folder / "result.json", asdict(result))


def write_predictions(folder: Path, predictions: Predictions) -> None:
    buffer = io.BytesIO()
    heads = {f"head{index}": head.astype(np.float32) for index, head in enumerate(predictions.heads)}
    np.savez(buffer, ids=np.array(predictions.ids), **heads)
    write_whole(folder / "valid.npz", buffer.getvalue())


def write_last(folder: Path, content: bytes) -> None:
    """Keep what is needed to continue, in place of an earlier epoch's."""
    (folder / LAST).parent.mkdir(exist_ok=True)
    write_whole(folder / LAST, content)


def read_last(folder: Path) -> bytes | None:
    return (folder / LAST).read_bytes() if (folder / LAST).is_file() else None


def read_predictions(folder: Path) -> Predictions:
    with np.load(folder / "valid.npz", allow_pickle=False) as arrays:
        heads = [arrays[f"head{index}"] for index in range(len(arrays.files) - 1)]
        return Predictions(tuple(arrays["ids"].tolist()), heads)


def read_reports(folder: Path) -> list[dict[str, Any]]:
    file = folder / "reports.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def read_record(folder: Path) -> Record:
    """The trial in a folder. Raises: OSError, ValueError or KeyError when its files are damaged."""
    config = TrialConfig.from_values(json.loads((folder / "config.json").read_text()))
    reports = read_reports(folder)
    file = folder / "result.json"
    result = Result(**json.loads(file.read_text())) if file.is_file() else Result("interrupted", "nothing was reported", 0, "", "", "")
    return Record(folder, int(folder.name), config, tuple(reports), result)


def read_records(run: Path) -> list[Record]:
    """The trials of a run by number."""
    folders = [folder for folder in (run / "trials").glob("*") if (folder / "config.json").is_file()]
    return [read_record(folder) for folder in sorted(folders, key=lambda folder: int(folder.name))]


def end_record(folder: Path, state: State, reason: str) -> None:
    """Say how a trial ended, keeping the rest of its result; what was needed to continue goes, unless it was interrupted."""
    file = folder / "result.json"
    if file.is_file():
        write_json(file, json.loads(file.read_text()) | {"state": state, "reason": reason})
        if state != "interrupted":
            shutil.rmtree((folder / LAST).parent, ignore_errors=True)


def write_run(run: Path, card: RunCard) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "run.json", asdict(card))


def read_run(run: Path) -> RunCard:
    values = json.loads((run / "run.json").read_text())
    values["cuts"] = tuple(values["cuts"])
    values["attributes"] = tuple((name, tuple(names)) for name, names in values["attributes"])
    return RunCard(**values)
