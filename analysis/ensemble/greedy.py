"""Ensemble selection: members are picked one at a time, again and again, each time the one that helps most."""

import numpy as np

from analysis.ensemble.voting import Mean, best, member_scores
from trainables.metrics.f1 import confusion, macro_f1

PICKS = 40  # at most, repeats counted
BAGS = 20
SHARE = 0.5  # of the library in a bag
SEED = 0  # of what is drawn into the bags


def greedy(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray) -> Mean:
    """The mean probability with weights by how often a member is picked, averaged over bags that hold part of the members.

    One pick after the other is the member that makes macro F1 of the mean highest, repeats allowed, from the best few on. Bags keep
    members from being picked for their luck alone, and so does that they must be better than halfway from chance to the best one. On
    these photos the result never scores below the best single member, which it is where nothing scores above.

    Source: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004; the pruned library: Caruana et al., Getting the Most
    out of Ensemble Selection, ICDM 2006.
    """
    members, _, classes = probabilities.shape
    scores = member_scores(probabilities, target)
    top = scores.max()
    order = np.argsort(-scores, kind="stable")
    library = order[scores[order] >= min(top, (top + 1 / classes) / 2)]
    shares = np.stack([probabilities[member].astype(np.float32) for member in library], axis=1)
    # A row of draws for each member, best first: one more at the end leaves the draws of all others as they are.
    bags = np.random.default_rng(SEED).random((len(library), BAGS)) < SHARE
    bags[0] = True
    weights = np.zeros(members)
    for bag in bags.T:
        picks = climb(shares[:, bag], target)
        weights[library[bag]] += picks / picks.sum()
    mean = Mean(tuple((weights / weights.sum()).tolist()))
    found = macro_f1(confusion(target, mean(probabilities).argmax(axis=1), classes))
    return mean if found > top else best(probabilities, target, people)


def climb(shares: np.ndarray, target: np.ndarray, most: int = PICKS) -> np.ndarray:
    """How often (members,) each member is picked.

    The first picks are the best few members, as many of up to half of all picks as score highest together. Then the member whose
    addition scores highest is picked, the first of several, until none scores higher than what there is.

    Args:
        shares: probabilities (photos, members, classes), best member first.
        target: true classes (photos,).
        most: picks, at most.
    """
    _, members, classes = shares.shape
    sums = shares[:, : max(1, most // 2)].cumsum(axis=1)
    scores = rounded_f1(confusions(target, sums.argmax(axis=2), classes))
    start = scores.argmax()
    picks, total, score = (np.arange(members) <= start).astype(int), sums[:, start].copy(), scores[start]
    while picks.sum() < most and score < 1:
        # One member adds at most 1 to a class: where the first class leads by more, no addition changes the answer.
        second, first = np.partition(total, -2, axis=1)[:, -2:].T
        sure = first - second > 1.01
        settled = confusion(target[sure], total[sure].argmax(axis=1), classes)
        answers = (shares[~sure] + total[~sure, None]).argmax(axis=2)
        scores = rounded_f1(settled + confusions(target[~sure], answers, classes))
        pick = scores.argmax()
        if scores[pick] <= score:
            break
        picks[pick] += 1
        total += shares[:, pick]
        score = scores[pick]
    return picks


def confusions(target: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts (candidates, classes, classes) of the answers (photos, candidates) of each."""
    return np.stack([confusion(target, column, classes) for column in answers.T])


def rounded_f1(counts: np.ndarray) -> np.ndarray:
    """Macro F1 (candidates,) of confusion counts, rounded so that equal scores whose sums differ in the last bit are equal."""
    return np.round(macro_f1(counts), 12)
