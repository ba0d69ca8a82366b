"""What an answer has to show for itself: all that its score and the uncertainty of it take, group by group of images.

A group holds images that are no independent evidence of each other, such as those of one person; so whole groups are drawn. Source: the
cluster bootstrap, Davison and Hinkley, Bootstrap Methods and their Application, 1997.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainables.metrics.metric import Metric, Summed, Weighed

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Interval = tuple[float, float]
BLOCK = 4_000_000  # numbers that are held at a time for some draws
JACKKNIFE = 400  # parts of the groups that are left out in turn, at most


@dataclass(frozen=True, eq=False)
class Sums:
    """Of a metric that is a function of sums: these, (groups, k). Memory grows with groups times k at most, and with images where that is
    less."""

    metric: Metric
    sums: "np.ndarray | csr_array"

    @property
    def shape(self) -> tuple[int, int]:
        """(groups, k)."""
        # pyrefly: ignore[bad-return]  SciPy has no annotations
        return self.sums.shape

    @property
    def groups(self) -> int:
        return self.shape[0]

    def score(self) -> float:
        """Of all groups."""
        return float(self.metric.summed.score(np.ones(self.groups) @ self.sums))

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The score (draws,) of groups that are there so often (draws, groups)."""
        return np.concatenate([self.metric.summed.score(self._drawn(block)) for block in _blocks(drawn, self.shape[1])])

    def interval(self, rng: np.random.Generator, draws: int = 1000) -> Interval:
        """The 95 % interval of the score on other groups, by the studentised bootstrap.

        How far a draw is from the score counts in units of that draw's own standard error. The percentile interval ignores it:
        where a class has few groups it is too short and lies too low, so that it holds the true value too seldom.

        Source: Davison and Hinkley, 1997; the standard error is that of the linearised score.
        """
        score, (spread,) = self.score(), self._spread(np.ones((1, self.groups)))
        scores, spreads = [], []
        for block in _blocks(draw_groups(self.groups, rng, draws), max(self.shape[1], self.groups)):
            scores.append(self.metric.summed.score(self._drawn(block)))
            spreads.append(self._spread(block))
        # Where mistakes are few, a draw may miss them all: without a spread of its own it would stretch the interval without end.
        distances = (np.concatenate(scores) - score) / np.maximum(np.concatenate(spreads), spread / 4 + 1e-9)
        low, high = np.percentile(distances, [2.5, 97.5])
        return _within((score - high * spread, score - low * spread), self.metric)

    def influence(self) -> np.ndarray:
        """What each group adds to the score (groups,), to first order: the squares add up to the squared standard error."""
        (added,) = self._added(np.ones((1, self.groups)))
        return added * np.sqrt(self.groups / max(self.groups - 1, 1))

    def _drawn(self, drawn: np.ndarray) -> np.ndarray:
        # BLAS multiplies no integers, and single precision holds whole sums exactly.
        return (drawn.astype(self.sums.dtype) @ self.sums).astype(float)

    def _spread(self, drawn: np.ndarray) -> np.ndarray:
        """The standard error (draws,) of the score of groups that are there so often (draws, groups)."""
        return np.sqrt((drawn * self._added(drawn) ** 2).sum(axis=1))

    def _added(self, drawn: np.ndarray) -> np.ndarray:
        """What each group adds (draws, groups): the derivative of the score by how often it is there (draws, groups)."""
        return self.metric.summed.slope(self._drawn(drawn)) @ self.sums.T


@dataclass(frozen=True, eq=False)
class AllImages:
    """Of a metric that is no function of sums: all images. Every draw scores them again."""

    metric: Metric
    weighed: Weighed
    truth: np.ndarray  # (n,)
    prediction: np.ndarray  # what the metric takes: labels (n,) or probabilities (n, classes)
    group: np.ndarray  # (n,) from 0
    weights: np.ndarray  # (n,) for how many each image counts

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    def score(self) -> float:
        """Of all groups."""
        return float(self.weighed(self.truth, self.prediction, self.weights[None])[0])

    def resampled(self, drawn: np.ndarray) -> np.ndarray:
        """The score (draws,) of groups that are there so often (draws, groups)."""
        scores = [
            self.weighed(self.truth, self.prediction, block[:, self.group] * self.weights) for block in _blocks(drawn, len(self.truth))
        ]
        return np.concatenate(scores)

    def interval(self, rng: np.random.Generator, draws: int = 1000) -> Interval:
        """The 95 % interval of the score on other groups, by the bias-corrected and accelerated bootstrap.

        Where a class is in few groups, draws vary too little, and how much they vary is itself uncertain: so they are stretched to the
        jackknife's standard error, and limits are taken as Student's t has them, for as many degrees of freedom as the groups'
        influences allow.

        Sources: Efron, Better bootstrap confidence intervals, Journal of the American Statistical Association, 1987; Efron and Stein, The
        jackknife estimate of variance, Annals of Statistics, 1981; Satterthwaite, An approximate distribution of estimates of variance
        components, Biometrics, 1946. The jackknife leaves groups out one by one, or several at a time where there are many.
        """
        # Imported here: they take a while, and --help should not.
        from scipy.special import ndtr, ndtri, stdtrit

        score, scores = self.score(), self.resampled(draw_groups(self.groups, rng, draws))
        influence = self._jackknife()
        parts = len(influence)
        squares = (influence**2).sum()
        if not squares or scores.min() == scores.max():
            return _within(interval(scores), self.metric)
        stretch = max(1.0, np.sqrt(squares / (parts * (parts - 1))) / scores.std())
        freedom = 2 * squares**2 / max((influence**4).sum() - squares**2 / parts, squares**2 / parts)
        acceleration = (influence**3).sum() / (6 * squares**1.5)
        below = ((scores < score).sum() + (scores == score).sum() / 2) / draws
        bias = ndtri(np.clip(below, 1 / draws, 1 - 1 / draws))
        ends = bias + stdtrit(freedom, [0.025, 0.975])
        limits = np.quantile(scores, ndtr(bias + ends / (1 - acceleration * ends)))
        return _within(tuple(score + stretch * (limits - score)), self.metric)

    def influence(self) -> np.ndarray:
        """What each part of the groups adds to the score (parts,): the squares add up to the jackknife's squared standard error."""
        found = self._jackknife()
        return found / np.sqrt(len(found) * max(len(found) - 1, 1))

    def _jackknife(self) -> np.ndarray:
        left_out = self.resampled(_all_but_one_part(self.groups))
        return (len(left_out) - 1) * (left_out.mean() - left_out)


Evidence = Sums | AllImages


def evidence(
    metric: Metric, truth: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None
) -> Evidence:
    """The evidence for an answer.

    Args:
        truth: true classes (n,).
        probabilities: (n, classes).
        groups: any ids (n,); groups are numbered in the order of these.
        weights: (n,) for how many each image counts; None: for one.
    """
    return label_evidence(metric, truth, metric.prediction(probabilities), groups, probabilities.shape[1], weights)


def label_evidence(
    metric: Metric, truth: np.ndarray, prediction: np.ndarray, groups: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> Evidence:
    """Likewise, of what the metric takes: labels (n,) or probabilities (n, classes)."""
    _, group = np.unique(groups, return_inverse=True)
    if isinstance(metric.formula, Summed):
        return Sums(metric, group_sums(metric.formula.statistics(truth, prediction, classes), group, weights))
    return AllImages(metric, metric.formula, truth, prediction, group, np.ones(len(truth)) if weights is None else weights)


def group_sums(
    statistics: "np.ndarray | csr_array", group: np.ndarray, weights: np.ndarray | None = None, count: int | None = None
) -> "np.ndarray | csr_array":
    """Sums (groups, k) over the images of each group, by weight, of statistics (n, k).

    Args:
        group: number of each image's (n,), from 0.
        count: of groups; None: as many as there are.
    """
    from scipy.sparse import csr_array

    images = len(group)
    count = int(group.max(initial=-1)) + 1 if count is None else count
    values = np.ones(images, statistics.dtype) if weights is None else weights.astype(statistics.dtype)
    return csr_array((values, (group, np.arange(images))), shape=(count, images)) @ statistics


def draw_groups(groups: int, rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """How often each group is in each draw (draws, groups), drawn with replacement; float32."""
    drawn = np.empty((draws, groups), np.float32)
    chances = np.full(groups, 1 / groups)
    for block in _blocks(drawn, groups):
        block[:] = rng.multinomial(groups, chances, size=len(block))
    return drawn


def resample(found: Sequence[Evidence], rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """Scores (answers, draws) of several answers, the same groups drawn for all of them."""
    drawn = draw_groups(found[0].groups, rng, draws)
    return np.stack([one.resampled(drawn) for one in found])


def interval(values: np.ndarray) -> Interval:
    """The 95 % percentile interval of bootstrap values, such as the differences of two answers on the same draws."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _blocks(drawn: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Some draws at a time, of which each makes `width` numbers."""
    rows = max(1, BLOCK // max(1, width))
    return (drawn[start : start + rows] for start in range(0, len(drawn), rows))


def _all_but_one_part(groups: int) -> np.ndarray:
    """Which groups are there (parts, groups) when one part of them after the other is left out."""
    parts = min(groups, JACKKNIFE)
    return (np.arange(groups) % parts != np.arange(parts)[:, None]).astype(np.float32)


def _within(limits: Interval, metric: Metric) -> Interval:
    low, high = np.clip(limits, *metric.bounds)
    return float(low), float(high)
