"""What the other commands found, read from the files that they left in the run's folder.

These files are of any version: what is missing in one is left out of the report, what is damaged is named.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from analysis.evaluation.calibration import CalibrationError, calibration_error
from analysis.evaluation.decide import SINGLE, WITH_STEPS, answer_words, step_words
from analysis.evaluation.priced import Entry, priced_of
from analysis.evaluation.scoring import AlsoScored
from analysis.evaluation.search.reading import is_finite, lenient
from analysis.figures.price import Priced, Sort
from analysis.members.trials import load_runs
from analysis.pages.errors import headline
from trainables.data.targets import Kind
from trainables.metrics import BY_NAME, DEFAULT, METRICS_OF, Metric
from trainables.record import BASELINE, RunError, read_json
from trainables.storage import Folder

Interval = tuple[float, float]
CALIBRATION_ERROR = TypeAdapter(CalibrationError)


@dataclass(frozen=True)
class Answer:
    """What one answer is worth on the hold-out."""

    name: str  # in words
    score: float  # by the run's metric
    interval: Interval | None
    accuracy: float | None
    target_scores: dict[str, float]
    gain: float | None  # over the best single member
    gain_interval: Interval | None
    distinguishable: bool

    @property
    def is_single(self) -> bool:
        """Whether it is the best single member, which the others are compared with."""
        return self.name == answer_words(SINGLE)

    @property
    def called(self) -> str:
        """What a sentence calls it."""
        return "best single model" if self.is_single else self.name


@dataclass(frozen=True)
class Member:
    """One of those that vote, or could have."""

    name: str
    backbones: tuple[tuple[str, str], ...]  # of its trials, by their names
    weight: float | None
    valid: float | None  # score
    holdout: float | None
    like_the_best: bool


@dataclass(frozen=True)
class Baseline:
    """What the answer, or the best trial, gains over the trial that one would have trained without searching."""

    trial: str
    gain: float  # on validation groups; of the answer, on those that it was not fitted on
    interval: Interval
    distinguishable: bool


@dataclass(frozen=True)
class Scores:
    """What `analysis.ensemble` found."""

    metric: Metric
    answers: tuple[Answer, ...]
    chosen: Answer
    vote: str
    supported: bool | None  # whether validation had shown a gain of the vote; None where that was not asked
    members: tuple[Member, ...]
    images: int
    groups: int
    questions: int  # different calls that the hold-out has answered
    confusion: np.ndarray | None  # counts of the hold-out, rows true
    calibration: CalibrationError | None  # of the answer on the hold-out
    shifts: tuple[dict[str, Any], ...]
    steps: tuple[str, ...]  # in words, those that are used
    baseline: Baseline | None
    pool: int  # members that the best one was picked from
    optimism: float | None  # by how much the best one's score on validation is expected to be too high
    also: tuple[AlsoScored, ...]  # by the metrics that decide nothing
    findings: tuple[str, ...]  # what has to be said first of an answer that knows nothing
    corrected: float | None  # that score without it
    corrected_interval: Interval | None
    priced: tuple[Priced, ...]  # single models and answers, with what they cost
    settings: dict[str, Any]
    attributes: tuple[str, ...]
    beside: tuple[Entry, ...] = ()  # students and exported files

    @property
    def all_priced(self) -> tuple[Priced, ...]:
        """Those, and students and exported files."""
        return (*self.priced, *(Priced(one.name, one.sort, one.ms, one.score, one.interval) for one in self.beside))


@dataclass(frozen=True)
class Frame:
    """A table of another command."""

    title: str
    table: pd.DataFrame


def read_scores(run: Folder, damaged: list[str]) -> Scores | None:
    """What the run's ensemble is worth; None where there is none, or it is damaged, which is noted."""
    found = lenient(run, "ensemble/scores.json", lambda file: scores_of(read_json(file, "scores")), None, damaged)
    return found and replace(found, beside=tuple(priced_of(run)))


def read_baseline(run: Folder, damaged: list[str]) -> Baseline | None:
    """What the best trial of a run gains over its baseline on validation; None where that is not known."""
    return lenient(run, BASELINE, lambda file: _baseline(read_json(file, "baseline")), None, damaged)


def scores_of(found: Mapping[str, Any]) -> Scores:
    """The content of `scores.json` in today's format. Raises: one of DAMAGE where what matters is missing."""
    answers = tuple(_answer(answer_words(name), values) for name, values in dict(found["answers"]).items())
    chosen = answer_words(found.get("answer", found.get("vote", "")))
    holdout = found.get("holdout", {})
    counts = found.get("confusion")
    calibration = found.get("calibration")
    optimism = found.get("optimism", {})
    return Scores(
        metric=_metric(found.get("metric", DEFAULT), found.get("kind", "classes")),
        answers=answers,
        chosen=next((answer for answer in answers if answer.name == chosen), answers[0]),
        vote=str(found.get("vote", "")),
        supported=found.get("supported"),
        members=tuple(_member(values) for values in found.get("members", [])),
        images=int(holdout.get("photos", 0)),
        groups=int(holdout.get("people", 0)),
        questions=len(holdout.get("questions", ())),
        confusion=None if counts is None else np.asarray(counts, dtype=int),
        calibration=None if calibration is None else CALIBRATION_ERROR.validate_python(calibration),
        shifts=tuple(map(dict, found.get("shift", ()))),
        steps=tuple(step_words(step["name"]) for step in found.get("steps", ()) if step["used"]),
        baseline=_baseline(found.get("baseline")),
        pool=int(optimism.get("members", found.get("members_to_choose_from", 0))),
        optimism=optimism.get("expected"),
        also=tuple(AlsoScored(**one) for one in found.get("also", ())),
        findings=tuple(map(str, found.get("findings", ()))),
        corrected=optimism.get("corrected"),
        corrected_interval=_interval(optimism.get("corrected_interval")),
        priced=tuple(_priced(found, answers)),
        settings=dict(found.get("settings", {})),
        attributes=tuple(found.get("attributes", ())),
    )


def _metric(name: str, kind: Kind) -> Metric:
    return METRICS_OF[kind][name] if name in METRICS_OF[kind] else BY_NAME[name]


def _answer(name: str, values: Mapping[str, Any]) -> Answer:
    gain = _interval(values.get("gain_interval"))
    return Answer(
        name=name,
        score=float(values["score"]),
        interval=_interval(values.get("interval")),
        accuracy=values.get("accuracy"),
        target_scores=dict(values.get("target_scores", {})),
        gain=values.get("gain"),
        gain_interval=gain,
        distinguishable=bool(values.get("distinguishable", gain is not None and not gain[0] <= 0 <= gain[1])),
    )


def _priced(found: Mapping[str, Any], answers: Sequence[Answer]) -> Iterator[Priced]:
    """Models alone, then answers, where their prices are known."""
    for one in found.get("singles", ()):
        yield Priced(one["name"], "soup" if one["soup"] else "single model", one["ms"], one["score"], _interval(one["interval"]))
    for (name, price), answer in zip(found.get("prices", {}).items(), answers, strict=False):
        sort: Sort = "vote with its steps" if name.endswith(WITH_STEPS) else "vote"
        if not answer.is_single:
            yield Priced(answer.name, sort, price["ms"], answer.score, answer.interval)


def _member(values: Mapping[str, Any]) -> Member:
    trials = [trial for trial in values.get("trials", []) if isinstance(trial, Mapping)]
    names = [f"{trial['run'].rpartition('/')[2]}/{trial['number']}" for trial in trials]
    backbones = [trial.get("config", {}).get("model", {}).get("backbone", "") for trial in trials]
    return Member(
        name=str(values.get("name") or " x ".join(names)),
        backbones=tuple(zip(names, backbones, strict=True)),
        weight=values.get("weight"),
        valid=values.get("valid_score"),
        holdout=values.get("holdout_score"),
        like_the_best=bool(values.get("like_the_best", False)),
    )


def _baseline(values: Mapping[str, Any] | None) -> Baseline | None:
    interval = _interval(values.get("gain_interval")) if values else None
    if not values or not interval:
        return None
    return Baseline(str(values["trial"]), float(values["gain"]), interval, bool(values.get("distinguishable")))


def _interval(values: Sequence[float] | None) -> Interval | None:
    return (float(values[0]), float(values[1])) if values is not None else None


def read_models(run: Folder, damaged: list[str]) -> dict[str, int]:
    """How many models each trial that answers has, one or one a fold; none where there is no ensemble, or it is damaged, which is noted."""

    def counts(file: Folder) -> dict[str, int]:
        return {str(name): len(files) for name, files in read_json(file, "ensemble")["models"].items()}

    return lenient(run, "ensemble/ensemble.json", counts, {}, damaged)


def validation_calibration(run: Folder) -> tuple[str, CalibrationError] | None:
    """How far the run's best trial on validation is from being as often right as it is sure, and its name; None where no trial can
    predict."""
    try:
        runs = load_runs([run])
    except RunError:
        return None
    if runs.scheme.kind != "classes":
        return None
    return runs.best.name, calibration_error(runs.best.valid, runs.valid.truth(runs.best.task.scheme))


@dataclass(frozen=True)
class Finding:
    """A sentence on leaks."""

    words: str
    warning: bool


def read_leaks(run: Folder, damaged: list[str]) -> list[Finding]:
    """What was found out about leaks; nothing where that was not looked for, or its file is damaged, which is noted."""

    def findings(file: Folder) -> list[Finding]:
        return [Finding(str(one["words"]), bool(one["warning"])) for one in json.loads(file.read_text())["meaning"]]

    return lenient(run, "leaks/leaks.json", findings, [], damaged)


@dataclass(frozen=True)
class Wrong:
    """What is answered wrongly."""

    words: str  # how much
    kind: Kind  # of the targets


def read_wrong(run: Folder, damaged: list[str]) -> Wrong | None:
    """What `analysis.mistakes` counted; None where it did not, or its file is damaged, which is noted."""

    def wrong(file: Folder) -> Wrong:
        found = json.loads(file.read_text())
        kind: Kind = found.get("kind", "classes")  # which earlier versions did not know
        images, groups = int(found["images"]), int(found["groups"])
        rate = float(found["rate"]) if "rate" in found else int(found["errors"]) / max(1, images)
        return Wrong(headline(kind, str(found["side"]), images, groups, rate), kind)

    return lenient(run, "mistakes/mistakes.json", wrong, None, damaged)


def read_tables(run: Folder, titles: Mapping[str, str], damaged: list[str]) -> list[Frame]:
    """The tables that are there, of the named files and in their order; damaged ones are noted."""

    def frame(file: Folder) -> pd.DataFrame:
        return pd.read_csv(io.BytesIO(file.read_bytes()), keep_default_na=False, na_values=[""])

    found = [(title, lenient(run, name, frame, None, damaged)) for name, title in titles.items()]
    return [Frame(title, table) for title, table in found if table is not None]


def cell(value: Any) -> str:
    """A value of another command's table; nothing for one that is no number."""
    if not isinstance(value, float) or not is_finite(value):
        return "" if value != value else str(value)
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 10 else f"{value:.3g}"
