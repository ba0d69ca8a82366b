"""Would more images help? What the score does with the share of the training groups, and what it is expected to do with twice as many.

Sources: error falls as a power of the number of images, Hestness et al., Deep Learning Scaling is Predictable, Empirically, 2017
(arXiv 1712.00409), towards what no number of images undoes, Rosenfeld et al., A Constructive Prediction of the Generalization Error Across
Scales, ICLR 2020 (arXiv 1909.12673).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.metrics import Metric
from trainables.metrics.evidence import Evidence, Interval, draw_groups, interval

SHARES = (0.125, 0.25, 0.5, 1.0)  # of the training groups
POWERS = np.linspace(0.05, 1.0, 20)  # of the number of images with which error falls: measured ones lie between


@dataclass(frozen=True)
class Step:
    """The score of heads that were fitted to a share of the training groups."""

    share: float
    groups: int
    images: float  # mean over the draws of groups
    score: float  # likewise
    interval: Interval  # 95 %, over validation groups and draws


@dataclass(frozen=True)
class Curve:
    """The score against the share of the training groups."""

    steps: tuple[Step, ...]  # the smallest share first
    last: float  # what the second half of the groups gave; above 0 is better, whatever the metric's direction
    last_interval: Interval  # 95 %
    gain: float  # expected of twice the groups, likewise
    gain_interval: Interval  # 95 %

    @property
    def helps(self) -> bool:
        """Whether twice the groups are expected to give more than chance does."""
        return self.gain_interval[0] > 0


@dataclass(frozen=True, eq=False)
class Fitted:
    """Heads that were fitted to some of the training groups."""

    share: float
    groups: int
    images: int
    evidence: Evidence  # of their answers for the validation images, which are the same for all


def curve_of(fitted: Sequence[Fitted], metric: Metric, rng: np.random.Generator, draws: int = 1000) -> Curve:
    """The curve of heads fitted to several draws of each share, and what twice the groups would give.

    Each draw of the bootstrap takes other validation groups, the same for all shares, and other draws of training groups; through the mean
    errors of the shares goes error = a + b * groups ** -c, with a >= 0 and 0 < c <= 1, by least squares. With two shares a is 0.

    Args:
        fitted: of two shares or more.
    """
    shares = sorted({one.share for one in fitted})
    drawn = draw_groups(fitted[0].evidence.groups, rng, draws)
    groups, scores, found, steps = [], np.empty((draws, len(shares))), [], []
    for column, share in enumerate(shares):
        own = [one for one in fitted if one.share == share]
        each = np.stack([one.evidence.resampled(drawn) for one in own])
        chosen = rng.integers(len(own), size=(len(own), draws))
        scores[:, column] = np.take_along_axis(each, chosen, axis=0).mean(axis=0)
        found.append(float(np.mean([one.evidence.score() for one in own])))
        groups.append(own[0].groups)
        images = float(np.mean([one.images for one in own]))
        steps.append(Step(share, own[0].groups, images, found[-1], interval(scores[:, column])))
    perfect = metric.bounds[1] if metric.sign > 0 else metric.bounds[0]
    gains = gain_of_twice(np.array(groups), metric.sign * (perfect - scores))
    (gain,) = gain_of_twice(np.array(groups), metric.sign * (perfect - np.array([found])))
    last = metric.sign * (scores[:, -1] - scores[:, -2])
    return Curve(tuple(steps), metric.sign * (found[-1] - found[-2]), interval(last), float(gain), interval(gains))


def gain_of_twice(groups: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """By how much each row's error (rows,) is expected to fall with twice the most groups.

    Args:
        groups: (shares,) growing.
        errors: (rows, shares), 0 or more.
    """
    least, gains = np.full(len(errors), np.inf), np.zeros(len(errors))
    for power in POWERS.tolist():
        falling = (groups / groups[-1]) ** -power
        floors, slopes = _line(falling, errors) if len(groups) > 2 else (np.zeros(len(errors)), np.zeros(len(errors)))
        through = floors <= 0  # no error is below 0
        floors = np.where(through, 0.0, floors)
        slopes = np.where(through, errors @ falling / (falling @ falling), slopes)
        squares = ((floors[:, None] + slopes[:, None] * falling - errors) ** 2).sum(axis=1)
        better = squares < least
        least = np.where(better, squares, least)
        gains = np.where(better, slopes * (1 - 2**-power), gains)
    return gains


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercepts and slopes of the least squares line through (shares,) and each row of (rows, shares)."""
    apart = x - x.mean()
    slopes = (y - y.mean(axis=1, keepdims=True)) @ apart / (apart @ apart)
    return y.mean(axis=1) - slopes * x.mean(), slopes
