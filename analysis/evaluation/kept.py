"""Which share of a vote's gain over the best single model its student keeps, as far as the hold-out can tell."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.evaluation.uncertainty import Gain, paired_gain
from trainables.metrics.evidence import Evidence, Interval, interval, resample

DRAWS = 4000  # of the bootstrap over groups


@dataclass(frozen=True)
class Kept:
    """What is left of a gain."""

    gain: Gain  # of the vote over the best single model
    lost: Gain  # of the student over the vote: below 0 where it is worse
    share: float | None  # of the gain; None where the gain is not significant, so that there is nothing to have a share of
    interval: Interval | None  # 95 %

    @property
    def tells(self) -> bool:
        """Whether the share says anything: its interval is shorter than from nothing to all."""
        return self.interval is not None and self.interval[1] - self.interval[0] < 1

    def plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        lost = {f"student_{name}": value for name, value in self.lost.plain().items()}
        return {"share": self.share, "interval": self.interval, "tells": self.tells, **self.gain.plain(), **lost}

    def __str__(self) -> str:
        if self.share is None or self.interval is None:
            between = f"{self.gain.gain:+.3f}, 95 % CI {self.gain.interval[0]:+.3f} to {self.gain.interval[1]:+.3f}"
            return f"no share of the vote's gain can be given: that gain over the best single model is not significant here ({between})"
        words = (
            f"{self.share:.0%} of what the vote gains over the best single model (95 % CI {self.interval[0]:.0%} to {self.interval[1]:.0%})"
        )
        return words if self.tells else f"{words}: too noisy to tell all from nothing"


def kept_of(student: Evidence, vote: Evidence, single: Evidence, rng: np.random.Generator) -> Kept:
    """What the student keeps of the vote's gain over a single model, all three evaluated on the same groups.

    The interval is that of Fieller for a ratio, with the bootstrap over groups in place of the normal distribution: the shares r for which
    the interval of (student - single) - r (vote - single) holds 0. It has two ends only where the vote's gain is significant.

    Source: Fieller, Some problems in interval estimation, Journal of the Royal Statistical Society B, 1954.
    """
    gain, lost = paired_gain(vote, single, rng), paired_gain(student, vote, rng)
    if gain.interval[0] <= 0:
        return Kept(gain, lost, None, None)
    sign = single.metric.sign
    scores = [sign * one.score() for one in (student, vote, single)]
    drawn = sign * resample([student, vote, single], rng, DRAWS)
    above = drawn[1] > drawn[2]
    ratios = (drawn[0] - drawn[2])[above] / (drawn[1] - drawn[2])[above]
    return Kept(gain, lost, (scores[0] - scores[2]) / (scores[1] - scores[2]), interval(ratios))
