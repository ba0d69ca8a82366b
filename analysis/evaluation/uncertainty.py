"""How sure one can be of a choice: gains on the same people, members that may be the best, and what is luck in the highest score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.metrics.evidence import Evidence, Interval, interval, resample


@dataclass(frozen=True)
class Gain:
    """What one answer has over another."""

    gain: float  # in the metric's unit; above 0 is better, whatever its direction
    interval: Interval  # 95 %, of both answers on the same draws

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.interval[0] <= 0 <= self.interval[1]


def paired_gain(answer: Evidence, reference: Evidence, rng: np.random.Generator, draws: int = 1000) -> Gain:
    """The gain of an answer over a reference, both of the same groups of images, which are drawn alike for both."""
    (gain,), (drawn,) = _gains([answer], reference, rng, draws)
    return Gain(float(gain), interval(drawn))


def simultaneous_gains(answers: Sequence[Evidence], reference: Evidence, rng: np.random.Generator, draws: int = 4000) -> list[Gain]:
    """The gains of several answers over one reference, with intervals that hold all at once with 95 % confidence.

    So the interval of the highest gain may be believed although it was picked as the highest. All intervals leave out the same share at
    either end: the largest with which 95 % of all draws of groups lie within every one of them.

    Args:
        answers, reference: of the same groups of images.
        draws: more than for one interval, as the limits of several lie farther out.
    Source: Beran, Balanced simultaneous confidence sets, Journal of the American Statistical Association, 1988.
    """
    # Imported here: it takes a while, and --help should not.
    from scipy.stats import rankdata

    gains, drawn = _gains(answers, reference, rng, draws)
    below = (rankdata(drawn, axis=1) - 1) / (draws - 1)
    outermost = np.minimum(below, 1 - below).min(axis=0)
    tail = min(np.percentile(outermost, 5), 0.025)
    limits = np.quantile(drawn, [tail, 1 - tail], axis=1).T.tolist()
    return [Gain(float(gain), (low, high)) for gain, (low, high) in zip(gains, limits, strict=True)]


def _gains(answers: Sequence[Evidence], reference: Evidence, rng: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Gains (answers,) of several answers over one, and in each draw of groups, the same for all (answers, draws)."""
    scores, drawn = _scores([*answers, reference], rng, draws)
    return scores[:-1] - scores[-1], drawn[:-1] - drawn[-1]


def indistinguishable(members: Sequence[Evidence], rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """Which members (members,) cannot be told apart from the best: with 95 % confidence the truly best one is among these.

    A member is one of them while it lags behind the highest score by no more than 95 % of all draws would have it lag, were all members
    worth the same. That is wider than the interval of the difference of two members: the highest score is the luckiest of many.

    Source: multiple comparisons with the best, Hsu, Annals of Statistics, 1984; limits by the bootstrap over groups of images.
    """
    scores, luck = _scores_and_luck(members, rng, draws)
    return scores.max() - scores <= np.quantile(luck.max(axis=0) - luck, 0.95, axis=1)


@dataclass(frozen=True)
class Optimism:
    """By how much the highest of several scores exceeds what its member is worth on other people."""

    expected: float  # in the metric's unit; above 0: the score looks better than the member is
    interval: Interval  # 95 %
    members: int  # that it was picked from


def optimism(members: Sequence[Evidence], rng: np.random.Generator, draws: int = 1000) -> Optimism:
    """By how much the highest score exceeds its member's worth, because it is the highest.

    In every draw each member has a worth and the luck of the groups drawn, the highest sum is picked, and its luck is the optimism. The
    worth is drawn too, from what the scores tell of it: were it the score itself, luck and all, the same member would be picked again
    and again, and members alike in truth would seem apart.

    The luck is that of all groups drawn with replacement, against all groups. Those left out of a draw are too few for a score.

    Args:
        members: all that there were to choose from; the fewer are left of them, the smaller the optimism seems.
    Source: the bootstrap of Tsamardinos et al., Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation,
    2018, with the empirical Bayes of Efron, Tweedie's formula and selection bias, 2011.
    """
    scores, luck = _scores_and_luck(members, rng, draws)
    own = luck - luck.mean(axis=0)  # luck that all members share picks none of them
    spread = own.std(axis=1) * np.sqrt(len(members) / max(len(members) - 1, 1))
    worth = np.stack([rng.choice(scores, size=draws, p=chance) for chance in likely_worth(scores, spread)])
    picked = luck[(worth + luck).argmax(axis=0), np.arange(draws)]
    return Optimism(float(picked.mean()), interval(picked), len(members))


def likely_worth(scores: np.ndarray, spread: np.ndarray, rounds: int = 300) -> np.ndarray:
    """How likely it is that a member (row) is worth each of the scores (column), (members, members); rows sum to 1.

    How members differ in worth is not assumed but taken from the scores: it is the distribution over them that makes these scores, with
    normal luck of the given spread (members,), most likely.

    Source: the nonparametric maximum likelihood of Kiefer and Wolfowitz, 1956, by expectation maximisation as in Laird, 1978.
    """
    likelihood = np.exp(-(((scores[:, None] - scores) / np.maximum(spread, 1e-9)[:, None]) ** 2) / 2)
    share = np.full(len(scores), 1 / len(scores))
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
