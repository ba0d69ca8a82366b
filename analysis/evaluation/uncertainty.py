"""How sure one can be of a choice: gains on the same groups, members that may be the best, and what is luck in the highest score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainables.metrics.evidence import Evidence, Interval, interval, resample


@dataclass(frozen=True)
class Gain:
    """What one answer has over another."""

    gain: float  # in the metric's unit; above 0 is better, whatever its direction
    interval: Interval  # 95 %, of both answers on the same draws
    p: float = 1.0  # how often chance alone makes a gain as large, either way

    @property
    def significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.interval[0] <= 0 <= self.interval[1]

    def plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {"gain": self.gain, "gain_interval": self.interval, "distinguishable": self.significant, "p": self.p}


def score_words(score: float, interval: Interval) -> str:
    """`0.561 (0.480 to 0.710)`."""
    return f"{score:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def gain_words(gain: Gain) -> str:
    """`+0.012 (-0.004 to +0.030)`."""
    low, high = gain.interval
    return f"{gain.gain:+.3f} ({low:+.3f} to {high:+.3f})"


def paired_gain(answer: Evidence, reference: Evidence, rng: np.random.Generator, draws: int = 1000) -> Gain:
    """The gain of an answer over a reference, both of the same groups of images, which are drawn alike for both."""
    return simultaneous_gains([answer], reference, rng, draws)[0]


def simultaneous_gains(answers: Sequence[Evidence], reference: Evidence, rng: np.random.Generator, draws: int = 4000) -> list[Gain]:
    """The gains of several answers over one reference, with intervals that hold all at once with 95 % confidence.

    So the interval of the highest gain may be believed although it was picked as the highest. All intervals leave out the same share at
    either end: the largest with which 95 % of all draws of groups lie within every one of them. The draws are widened for how few groups
    they come from (`_widened`); p values hold all at once too.

    Args:
        answers, reference: of the same groups of images.
        draws: more than for one interval, as the limits of several lie farther out.
    Source: Beran, Balanced simultaneous confidence sets, Journal of the American Statistical Association, 1988.
    """
    # Imported here: it takes a while, and --help should not.
    from scipy.stats import rankdata

    scores, drawn = _scores([*answers, reference], rng, draws)
    gains = scores[:-1] - scores[-1]
    own = reference.influence()
    drawn = _widened(gains, drawn[:-1] - drawn[-1], np.stack([one.influence() - own for one in answers]))
    below = (rankdata(drawn, axis=1) - 1) / (draws - 1)
    outermost = np.minimum(below, 1 - below).min(axis=0)
    tail = min(np.percentile(outermost, 5), 0.025)
    limits = np.quantile(drawn, [tail, 1 - tail], axis=1).T.tolist()
    beyond = np.minimum((drawn <= 0).mean(axis=1), (drawn >= 0).mean(axis=1))
    chances = [min(1.0, max(2 * one, (outermost <= one).mean(), 1 / draws)) for one in beyond]
    return [Gain(float(gain), (low, high), float(p)) for gain, (low, high), p in zip(gains, limits, chances, strict=True)]


def _widened(gains: np.ndarray, drawn: np.ndarray, influence: np.ndarray) -> np.ndarray:
    """Draws of gains (answers, draws), spread about the gains as far as Student's t has them for the groups that tell of the gain.

    The bootstrap takes the sample's own spread for the true one. Where two answers differ on a few groups only, that spread is itself
    uncertain: it has as many degrees of freedom as the influences of the groups (answers, groups) allow.

    Sources: Satterthwaite, An approximate distribution of estimates of variance components, Biometrics, 1946; Hesterberg, What teachers
    should know about the bootstrap, The American Statistician, 2015 (draws vary too little, and their quantiles should be t's).
    """
    from scipy.special import ndtri, stdtrit
    from scipy.stats import rankdata

    squares, fourths, groups = (influence**2).sum(axis=1), (influence**4).sum(axis=1), influence.shape[1]
    spread = drawn.std(axis=1)
    differ = (squares > 0) & (spread > 0)
    squares, fourths, spread = (np.where(differ, one, 1.0) for one in (squares, fourths, spread))
    freedom = 2 * squares**2 / np.maximum(fourths - squares**2 / groups, squares**2 / groups)
    place = (rankdata(drawn, axis=1) - 0.5) / drawn.shape[1]
    outer = 0.5 + np.maximum(np.abs(place - 0.5), 0.2)  # in the middle both quantiles are 0
    longer = np.maximum(1, np.sqrt(squares) / spread)[:, None] * stdtrit(freedom[:, None], outer) / ndtri(outer)
    return np.where(differ[:, None], gains[:, None] + (drawn - gains[:, None]) * longer, drawn)


def indistinguishable(members: Sequence[Evidence], rng: np.random.Generator, draws: int = 1000, level: float = 0.95) -> np.ndarray:
    """Which members (members,) are not significantly worse than the best: with 95 % confidence the truly best one is among these.

    A member is one of them while it lags behind the highest score by no more than 95 % (`level`) of all draws would have it lag, were all
    members worth the same. That is wider than the interval of the difference of two members: the highest score is the luckiest of many.

    Source: multiple comparisons with the best, Hsu, Annals of Statistics, 1984; limits by the bootstrap over groups of images.
    """
    scores, luck = _scores_and_luck(members, rng, draws)
    return scores.max() - scores <= np.quantile(luck.max(axis=0) - luck, level, axis=1)


@dataclass(frozen=True)
class Optimism:
    """By how much the highest of several scores exceeds what its member is worth on other groups."""

    expected: float  # in the metric's unit; above 0: the score is better than the member
    interval: Interval  # 95 %
    members: int  # that it was picked from
    corrected: float  # the score without it
    corrected_interval: Interval  # 95 %, of what the member is worth on other groups


def optimism(members: Sequence[Evidence], rng: np.random.Generator, draws: int = 1000) -> Optimism:
    """By how much the highest score exceeds its member's worth, because it is the highest.

    In every draw each member has a worth and the luck of the groups drawn, the highest sum is picked, and its luck is the optimism. The
    worth is drawn too, from what the scores tell of it: were it the score itself, luck and all, the same member would be picked again
    and again, and members alike in truth would seem apart.

    The luck is that of all groups drawn with replacement, against all groups. Those left out of a draw are too few for a score. What is
    left of the score has the studentised interval of the best member's own, moved as far.

    Args:
        members: all that there were to choose from; the fewer are left of them, the smaller the optimism seems.
    Source: the bootstrap of Tsamardinos et al., Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation,
    2018, with the empirical Bayes of Efron, Tweedie's formula and selection bias, 2011.
    """
    scores, luck = _scores_and_luck(members, rng, draws)
    # A score of drawn groups is lower on average, as rare classes may be missing: that is no luck of the groups that there are.
    luck = luck - luck.mean(axis=1, keepdims=True)
    own = luck - luck.mean(axis=0)  # luck that all members share picks none of them
    spread = own.std(axis=1) * np.sqrt(len(members) / max(len(members) - 1, 1))
    worth = np.stack([rng.choice(scores, size=draws, p=chance) for chance in likely_worth(scores, spread)])
    picked = luck[(worth + luck).argmax(axis=0), np.arange(draws)]
    best, expected = members[int(scores.argmax())], float(picked.mean())
    corrected = np.array([best.score(), *best.interval(rng, draws)]) - best.metric.sign * expected
    worth, low, high = np.clip(corrected, *best.metric.bounds).tolist()
    return Optimism(expected, interval(picked), len(members), worth, (low, high))


def likely_worth(scores: np.ndarray, spread: np.ndarray, rounds: int = 300) -> np.ndarray:
    """How likely it is that a member (row) is worth each of the scores (column), (members, members); rows sum to 1.

    How members differ in worth is not assumed but taken from the scores: it is the distribution over them that makes these scores, with
    normal luck of the given spread (members,), most likely.

    Source: the nonparametric maximum likelihood of Kiefer and Wolfowitz, 1956, by expectation maximisation as in Laird, 1978.
    """
    likelihood = np.exp(-(((scores[:, None] - scores) / np.maximum(spread, 1e-9)[:, None]) ** 2) / 2)
    share = np.full(len(scores), 1 / len(scores))
    chances = likelihood
    for _ in range(rounds):
        chances = likelihood * share
        chances /= chances.sum(axis=1, keepdims=True)
        share = chances.mean(axis=0)
    return chances


def _scores_and_luck(members: Sequence[Evidence], rng: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (members,) of all groups, better where higher, and what each draw of groups has more than that (members, draws)."""
    scores, drawn = _scores(members, rng, draws)
    return scores, drawn - scores[:, None]


def _scores(answers: Sequence[Evidence], rng: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (answers,) of all groups and of each draw of them (answers, draws), better where higher."""
    sign = answers[0].metric.sign
    return sign * np.array([one.score() for one in answers]), sign * resample(answers, rng, draws)
