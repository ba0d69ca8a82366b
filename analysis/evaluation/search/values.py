"""What the values of each searched setting gave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.search.history import best_of
from analysis.evaluation.search.reading import SearchedTrial
from analysis.evaluation.search.space import Dimension, words
from trainables.metrics import Metric
from trainables.metrics.evidence import interval
from trainables.seeding import generator

FEWEST = 5  # trials for an interval of their median
DRAWS = 1000


@dataclass(frozen=True)
class ValueScores:
    """One choice, and the scores of the trials that drew it."""

    value: str
    scores: tuple[float, ...]
    median: float | None
    best: float | None
    interval: tuple[float, float] | None  # 95 %, of the median, by the bootstrap over trials; None with fewer than 5


@dataclass(frozen=True)
class SettingScores:
    """A searched setting: scores by choice, or one point a trial."""

    path: str
    trials: int
    log: bool
    choices: tuple[ValueScores, ...]  # in the space's order; empty for a number
    points: tuple[tuple[float, float], ...]  # (value, score), best trial first; empty for a choice


def setting_scores(trials: Sequence[SearchedTrial], space: Sequence[Dimension], metric: Metric) -> list[SettingScores]:
    """One for each setting that some trial drew, in the space's order.

    Args:
        trials: that have a score, best first.
    """
    found = []
    for dimension in space:
        drawn = [(trial.values[dimension.path], trial.score) for trial in trials if dimension.path in trial.values]
        own = [(value, score) for value, score in drawn if score is not None]
        if own and dimension.kind == "choice":
            values = dict.fromkeys(words(value) for value in (*dimension.values, *(value for value, _ in own)))
            choices = tuple(_value_scores(name, [score for value, score in own if words(value) == name], metric) for name in values)
            found.append(SettingScores(dimension.path, len(own), False, choices, ()))
        elif own:
            found.append(SettingScores(dimension.path, len(own), dimension.log, (), tuple(own)))
    return found


def _value_scores(name: str, scores: list[float], metric: Metric) -> ValueScores:
    if not scores:
        return ValueScores(name, (), None, None, None)
    between = None
    if len(scores) >= FEWEST:
        draws = generator(0, "median", name).choice(scores, (DRAWS, len(scores)))
        between = interval(np.median(draws, axis=1))
    return ValueScores(name, tuple(scores), float(np.median(scores)), best_of(metric, scores), between)
