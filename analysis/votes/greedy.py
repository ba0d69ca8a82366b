"""Ensemble selection: members are picked one at a time, again and again, each time the one that helps most."""

from dataclasses import dataclass

import numpy as np

from analysis.votes.voting import Mean, best, member_scores
from trainables.metrics import Metric
from trainables.metrics.evidence import group_sums

PICKS = 40  # at most, repeats counted
BAGS = 20
SHARE = 0.5  # of the library in a bag
SEED = 0  # of what is drawn into the bags
FEW = 10  # members, at most, where all there are may be picked: as many as a search keeps the weights of


def greedy(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Mean:
    """The mean probability with weights by how often a member is picked, averaged over bags that hold part of the members.

    One pick after the other is the member that makes the score of the mean best, repeats allowed, from the best few on. Bags keep
    members from being picked for their luck alone, and so does that they must be better than halfway from chance to the best one. On
    these images the result never scores worse than the best single member, which it is where nothing scores better.

    Source: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004; the pruned library: Caruana et al., Getting the Most
    out of Ensemble Selection, ICDM 2006.
    """
    members, _, classes = probabilities.shape
    scores = metric.sign * member_scores(probabilities, target, metric)
    top = scores.max()
    order = np.argsort(-scores, kind="stable")
    library = order[scores[order] >= min(top, (top + metric.sign * metric.chance(classes)) / 2)]
    shares = np.stack([probabilities[member].astype(np.float32) for member in library], axis=1)
    # A row of draws for each member, best first: one more at the end leaves the draws of all others as they are.
    bags = np.random.default_rng(SEED).random((len(library), BAGS)) < SHARE
    bags[0] = True
    weights = np.zeros(members)
    for bag in bags.T:
        picks = climb(shares[:, bag], target, metric)
        weights[library[bag]] += picks / picks.sum()
    mean = Mean(tuple((weights / weights.sum()).tolist()))
    found = metric.sign * metric.score(target, mean(probabilities))
    return mean if found > top else best(probabilities, target, groups, metric)


def greedy_few(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Mean:
    """The same of many members: the few that are picked most often, in the same proportions.

    Over many bags nearly every member is picked at some time, and each costs a model's time for every image. On these images, too, the
    result never scores worse than the best single member.
    """
    weights = np.array(greedy(probabilities, target, groups, metric).weights)
    weights[np.argsort(-weights, kind="stable")[FEW:]] = 0
    mean, single = Mean(tuple((weights / weights.sum()).tolist())), best(probabilities, target, groups, metric)
    found, least = (metric.sign * metric.score(target, one(probabilities)) for one in (mean, single))
    return mean if found > least else single


def climb(shares: np.ndarray, target: np.ndarray, metric: Metric, most: int = PICKS) -> np.ndarray:
    """How often (members,) each member is picked.

    The first picks are the best few members, as many of up to half of all picks as score highest together. Then the member whose
    addition scores highest is picked, the first of several, until none scores higher than what there is.

    Args:
        shares: what members answer (images, members, columns), best member first.
        target: what is true (images,), or of tags (images, tags).
        most: picks, at most.
    """
    _, members, classes = shares.shape
    sums = shares[:, : max(1, most // 2)].cumsum(axis=1)
    tally = _Tally(metric, classes)
    scores = tally.scores(target, sums, np.arange(1, sums.shape[1] + 1))
    start = scores.argmax()
    picks, total, score = (np.arange(members) <= start).astype(int), sums[:, start].copy(), scores[start]
    while picks.sum() < most and score < max(metric.sign * bound for bound in metric.bounds):
        # One member adds at most 1 to a class: where the first class leads by more, no addition changes the label.
        second, first = np.partition(total, -2, axis=1)[:, -2:].T if classes > 1 else (total[:, 0], total[:, 0])
        sure = first - second > 1.01 if tally.of_labels else np.zeros(len(total), dtype=bool)
        counts = np.full(members, picks.sum() + 1)
        scores = tally.scores(target[~sure], shares[~sure] + total[~sure, None], counts, settled=(target[sure], total[sure]))
        pick = scores.argmax()
        if scores[pick] <= score:
            break
        picks[pick] += 1
        total += shares[:, pick]
        score = scores[pick]
    return picks


@dataclass(frozen=True)
class _Tally:
    """Scores of candidates that answer most images alike."""

    metric: Metric
    classes: int

    @property
    def of_labels(self) -> bool:
        """Whether labels and sums are enough, so that images on which all candidates agree are added up once."""
        return self.metric.is_of_sums and self.metric.takes == "labels" and self.metric.target == "classes"

    def scores(
        self, target: np.ndarray, sums: np.ndarray, counts: np.ndarray, settled: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """Scores (candidates,), better where higher, rounded so that equal ones whose sums differ in the last bit are equal.

        Args:
            sums: what each candidate answers, added up over its members (images, candidates, columns).
            counts: of the members of each candidate (candidates,).
            settled: images (m,) beside these that all candidates answer alike: true classes and added probabilities (m, classes).
        """
        found = self._of_sums(target, sums, settled) if self.of_labels else self._one_by_one(target, sums, counts)
        return np.round(self.metric.sign * found, 12)

    def _of_sums(self, target: np.ndarray, sums: np.ndarray, settled: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
        images, candidates, _ = sums.shape
        statistics = self.metric.summed.statistics(np.repeat(target, candidates), sums.argmax(axis=2).ravel(), self.classes)
        tallied = group_sums(statistics, np.tile(np.arange(candidates), images), count=candidates)
        tallied = (tallied if isinstance(tallied, np.ndarray) else tallied.toarray()).astype(float)
        if settled is not None:
            truth, total = settled
            tallied += np.ones(len(truth)) @ self.metric.summed.statistics(truth, total.argmax(axis=1), self.classes)
        return self.metric.summed.score(tallied)

    def _one_by_one(self, target: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        shares = sums / (sums.sum(axis=2, keepdims=True) if self.metric.target == "classes" else counts[:, None].astype(sums.dtype))
        return np.array([self.metric.score(target, shares[:, candidate]) for candidate in range(shares.shape[1])])
