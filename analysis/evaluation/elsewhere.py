"""Scores that somebody else gave an answer, such as a leaderboard, beside our own of it: the notes of a run, and what each tells."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from analysis.evaluation.fitted_ensemble import ensemble_hash, maker, run_of
from analysis.evaluation.submission import CORRECTED, SUBMISSION
from trainables.metrics import Metric
from trainables.metrics.evidence import Interval
from trainables.record import DAMAGE, RunError, read_json, write_json
from trainables.storage import Folder, open_folder

FILE = "elsewhere.json"  # in the folder of a run
BESIDE = ".source.json"  # in place of .csv: what a submission is of, beside it


@dataclass(frozen=True)
class Own:
    """What the same answer is worth on our hold-out."""

    score: float
    interval: Interval  # 95 %


@dataclass(frozen=True)
class Note:
    """A score from elsewhere."""

    submission: str  # the file that was scored, as it was named
    sha256: str  # of that file
    ensemble: str  # sha256 of the file of the ensemble that answered
    date: str  # such as 2026-11-30
    by: str  # who scored
    metric: str  # its name
    title: str  # the same in words
    score: float
    own: Own | None = None  # None where the same answer was not scored by that metric here
    gain: float | None = None  # of the score over our own, above 0 is better
    shifted: tuple[str, ...] = ()  # targets whose class priors differ significantly in the images that were scored, see `shift`

    @property
    def outside(self) -> bool:
        """Whether the score lies outside the interval of our own."""
        return self.own is not None and not self.own.interval[0] <= self.score <= self.own.interval[1]

    def plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return asdict(self) | {"outside": self.outside}

    def __str__(self) -> str:
        words = f"{self.title} {self.score:.3f} by {self.by} ({self.date}), of {self.submission}"
        if self.own is None or self.gain is None:
            return f"{words}; our own is not known."
        (low, high), difference = self.own.interval, f"{self.gain:+.3f}"
        words = f"{words}: {difference} against our own {self.own.score:.3f} (95 % CI {low:.3f} to {high:.3f} on the hold-out)"
        if not self.outside:
            return f"{words}, within its interval."
        why = f"class priors differ significantly there ({', '.join(self.shifted)})" if self.shifted else "no prior shift was found there"
        return f"{words}, outside its interval: a sign that these images are unlike ours; {why}."


NOTES = TypeAdapter(tuple[Note, ...])


@dataclass(frozen=True)
class Source:
    """What a submission is of."""

    sha256: str  # of the submission
    ensemble: str  # its folder
    ensemble_sha256: str  # of its file


SOURCE = TypeAdapter(Source)


def source_file(submission: Path) -> Path:
    """The file beside a submission that says what it is of."""
    return submission.with_name(submission.stem + BESIDE)


def write_source(submission: Path, ensemble: Folder) -> Path:
    """Write beside a submission by which ensemble it is; returns the file."""
    # Seen from the submission, so that both may be moved together.
    place = os.path.relpath(ensemble.resolve(), submission.parent.resolve()) if isinstance(ensemble, Path) else str(ensemble)
    source = Source(_hash(submission), place, ensemble_hash(ensemble))
    write_json(source_file(submission), asdict(source))
    return source_file(submission)


def source_of(submission: Path) -> Source:
    """What a submission is of. Raises: RunError for a file that is none of ours, or was changed since."""
    if not submission.is_file():
        raise RunError(f"{submission}: there is no such file; give a submission that sweepvote wrote")
    folder, beside, sha256 = submission.parent, source_file(submission), _hash(submission)
    try:
        if submission.name in (*SUBMISSION, CORRECTED) and (folder / "scores.json").is_file():
            return Source(sha256, str(folder.resolve()), ensemble_hash(folder))
        source = SOURCE.validate_python(read_json(beside, "source"))
    except FileNotFoundError:
        ours = "give runs/<run>/ensemble/submission.csv, or one that predict filled in"
        raise RunError(
            f"{submission} is no submission of ours: {beside.name}, which says what it is of, is not beside it; {ours}"
        ) from None
    except DAMAGE as error:
        raise RunError(f"{beside} is damaged ({error}); write the submission again") from None
    if source.sha256 != sha256:
        raise RunError(f"{submission} is not as it was written: what it is of, {beside.name}, is of another content. Write it again")
    place = open_folder(source.ensemble)
    return replace(source, ensemble=str((folder / place).resolve())) if isinstance(place, Path) else source


def out_of_range(score: float, metric: Metric) -> str:
    """Why a number cannot be a score by the metric; empty where it can."""
    low, high = metric.bounds
    if isfinite(score) and low <= score <= high:
        return ""
    return f"{score:g} is no {metric.name}, which lies between {low:g} and {high:g}"


def note_of(submission: Path, source: Source, score: float, metric: Metric, by: str, date: str) -> Note:
    """The note, with our own score of the same answer as scores.json has it."""
    folder = open_folder(source.ensemble)
    own, shifted = None, ()
    try:
        if ensemble_hash(folder) == source.ensemble_sha256:
            scores = read_json(folder / "scores.json", "scores")
            own = _own(scores, metric)
            shifted = tuple(one["attribute"] for one in scores.get("shift", ()) if one.get("significant"))
    except DAMAGE:  # our own score is not known, which the note says
        own = None
    gain = None if own is None else metric.sign * (score - own.score)
    return Note(str(submission), source.sha256, source.ensemble_sha256, date, by, metric.name, metric.title, score, own, gain, shifted)


def run_with_notes(source: Source) -> Folder:
    """The run that an ensemble lies in. Raises: RunError where it lies in none."""
    folder = open_folder(source.ensemble)
    run = run_of(folder)
    if not (run / "run.json").is_file():
        raise RunError(f"{folder}, which the submission is of, lies in no run, which keeps the notes. Vote again: {maker(folder)}")
    return run


def read_notes(run: Folder) -> tuple[Note, ...]:
    """All notes of a run, oldest first. Raises: one of DAMAGE."""
    file = run / FILE
    return NOTES.validate_python(read_json(file, "elsewhere")["notes"]) if file.is_file() else ()


def add_note(run: Folder, note: Note) -> Sequence[Note]:
    """Write a note down behind those that there are; the same note again is one. Raises: RunError where the file is damaged."""
    try:
        known = read_notes(run)
    except DAMAGE as error:
        raise RunError(f"{run / FILE} is damaged ({error}); restore it from a backup, or move it away. Nothing was written") from None
    notes = [*(one for one in known if one != note), note]
    write_json(run / FILE, {"notes": [asdict(one) for one in notes]})
    return notes


def _own(scores: Mapping[str, Any], metric: Metric) -> Own | None:
    """The answer's score by a metric, of those in scores.json."""
    found = next((one for one in scores.get("also", ()) if one["metric"] == metric.name), None)
    if metric.name == scores["metric"]:
        found = scores["answers"][scores["answer"]]
    return found and Own(found["score"], (found["interval"][0], found["interval"][1]))


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
