"""How a search went: scores in order, learning curves, rungs, the settings side by side, and what it cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import TypeVar

from analysis.evaluation.search.reading import STATES, SearchedTrial, State
from analysis.evaluation.search.space import Dimension
from trainables.metrics import Metric

HOUR = 3600
Item = TypeVar("Item")


@dataclass(frozen=True)
class Step:
    """One trial in the order of the search."""

    number: int
    state: State
    score: float | None
    best: float | None  # score so far, this one included
    hours: float  # of training so far, of all trials one after the other, this one included


def history(trials: Sequence[SearchedTrial], metric: Metric) -> list[Step]:
    """The trials by number, with the best so far and the training that it took."""
    hours = accumulate(trial.seconds / HOUR for trial in trials)
    best = accumulate((trial.score for trial in trials), lambda one, other: best_of(metric, (one, other)))
    return [Step(trial.number, trial.state, trial.score, high, spent) for trial, high, spent in zip(trials, best, hours, strict=True)]


@dataclass(frozen=True)
class Rung:
    """An epoch at which trials were evaluated."""

    epoch: int
    evaluated: int
    passed: int


def rungs(trials: Sequence[SearchedTrial]) -> list[Rung]:
    """What was evaluated at each rung, by epoch."""
    found: dict[int, list[bool]] = {}
    for trial in trials:
        for decision in trial.decisions:
            found.setdefault(decision.epoch, []).append(decision.passed)
    return [Rung(epoch, len(passed), sum(passed)) for epoch, passed in sorted(found.items())]


@dataclass(frozen=True)
class Line:
    """A trial in parallel coordinates."""

    number: int
    score: float
    places: tuple[float | None, ...]  # on each axis, 0 to 1; None where it drew no such value


def parallel_lines(trials: Sequence[SearchedTrial], axes: Sequence[Dimension], metric: Metric) -> list[Line]:
    """The trials that have a score, best last, so that it is drawn above the others."""
    return [
        Line(trial.number, trial.score, tuple(axis.place(trial.values[axis.path]) if axis.path in trial.values else None for axis in axes))
        for trial in reversed(ranked(trials, metric))
        if trial.score is not None
    ]


@dataclass(frozen=True)
class Cost:
    """What the trials of one outcome took."""

    state: State
    trials: int
    epochs: int
    hours: float  # of training, of all trials one after the other
    gpu_hours: float  # of these on a GPU, by the share of it that a trial was given
    best: float | None  # score


def costs(trials: Sequence[SearchedTrial], gpus_per_trial: float | None, metric: Metric) -> list[Cost]:
    """One for each outcome that there is.

    Args:
        gpus_per_trial: as asked for; None counts a trial on a GPU as if it had all of it.
    """
    found = []
    for state in STATES:
        own = [trial for trial in trials if trial.state == state]
        on_gpu = [trial for trial in own if trial.device and not trial.device.startswith("CPU")]
        hours, gpu = (sum(trial.seconds for trial in group) / HOUR for group in (own, on_gpu))
        share = 1.0 if gpus_per_trial is None else gpus_per_trial
        if own:
            best = best_of(metric, (trial.score for trial in own))
            found.append(Cost(state, len(own), sum(len(trial.curve) for trial in own), hours, gpu * share, best))
    return found


def ranked(trials: Sequence[SearchedTrial], metric: Metric) -> list[SearchedTrial]:
    """Those with a score, best first; ties go to the lower number."""
    scored = [(-metric.sign * trial.score, trial.number, trial) for trial in trials if trial.score is not None]
    return [trial for _, _, trial in sorted(scored, key=itemgetter(0, 1))]


def best_of(metric: Metric, scores: Iterable[float | None]) -> float | None:
    """The best of the scores that are there; None where none is."""
    return max((score for score in scores if score is not None), key=lambda score: metric.sign * score, default=None)


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spread over their order, first and last included."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
