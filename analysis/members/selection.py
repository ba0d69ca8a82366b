"""Which members vote: the best, the best of each kind, or good ones that fail on different images."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from analysis.votes.voting import member_scores
from trainables.metrics import Metric
from trainables.record import RunError


def best(probabilities: np.ndarray, target: np.ndarray, kinds: Sequence[str], count: int, metric: Metric) -> list[int]:
    """The members with the best score."""
    return _ranked(_worth(probabilities, target, metric), count)[:count]


def per_kind(probabilities: np.ndarray, target: np.ndarray, kinds: Sequence[str], count: int, metric: Metric) -> list[int]:
    """The best of each kind, then the second best of each, and so on; a kind's turn is that of its best member."""
    of_kind: dict[str, list[int]] = {}
    for member in _ranked(_worth(probabilities, target, metric), count):
        of_kind.setdefault(kinds[member], []).append(member)
    return [member for turn in zip_longest(*of_kind.values()) for member in turn if member is not None][:count]


def diverse(probabilities: np.ndarray, target: np.ndarray, kinds: Sequence[str], count: int, metric: Metric) -> list[int]:
    """The best member; then, again and again, the one with the highest score less its mean double fault with those taken.

    The double fault of two members is the share of images on which both are wrong, meant over the classes. So disagreement counts only
    where the newcomer is right: to be taken before another member, its score and its recall together must exceed that member's score,
    however much it disagrees. That weighs a score against a share: it is made for metrics that run from 0 to 1.

    Source: the double-fault measure of Giacinto and Roli, Design of effective neural network ensembles for image classification
    purposes, 2001; compared with others by Kuncheva and Whitaker, Measures of diversity in classifier ensembles, 2003.
    """
    scores = _worth(probabilities, target, metric)
    taken = _ranked(scores, count)[:1]
    faults = double_faults(probabilities, target, metric)
    while len(taken) < count:
        worth = scores - faults[:, taken].mean(axis=1)
        worth[taken] = -np.inf
        taken.append(int(worth.argmax()))
    return taken


def double_faults(probabilities: np.ndarray, target: np.ndarray, metric: Metric) -> np.ndarray:
    """For each two members the share of images on which both are wrong, the mean over the classes that there are (members, members).

    Of tags it is the share of all pairs of an image and a tag; of a number, both are wrong as far as the nearer one is, in shares of the
    members' mean distance.
    """
    members = len(probabilities)
    if metric.target == "tags":
        flat = (metric.prediction(probabilities) != target).reshape(members, -1).astype(float)
        return flat @ flat.T / flat.shape[1]
    if metric.target == "number":
        away = np.abs(probabilities[..., 0] - target)
        return np.minimum(away[:, None], away[None]).mean(axis=2) / max(away.mean(), 1e-12)
    wrong = (probabilities.argmax(axis=2) != target).astype(float)
    images = np.bincount(target)
    return (wrong / images[target]) @ wrong.T / np.count_nonzero(images)


def take(top: int | None, there: int) -> int:
    """How many members are chosen where so many are asked for: no more than there are, and all by default. Raises: RunError for none."""
    count = there if top is None else min(top, there)
    refuse_count(count, there)
    return count


def refuse_count(count: int | None, there: int) -> None:
    """Raises: RunError, saying how many there are, when so many members cannot be chosen."""
    if count is not None and not 1 <= count <= there:
        raise RunError(f"--top is {count}, but there are {there} members to choose from; take 1 to {there}")


def _worth(probabilities: np.ndarray, target: np.ndarray, metric: Metric) -> np.ndarray:
    """Scores (members,), better where higher."""
    return metric.sign * member_scores(probabilities, target, metric)


def _ranked(scores: np.ndarray, count: int) -> list[int]:
    """All members, highest score first. Raises: RunError when so many cannot be chosen."""
    refuse_count(count, len(scores))
    return np.argsort(-scores, kind="stable").tolist()


# Each is called with probabilities (members, images, classes), true classes (images,), a kind for each member, such as its backbone,
# how many to choose, and the metric to choose by. It returns so many different members, by their places, in the order in which they
# were chosen; ties go to the earlier one. Raises: RunError, saying how many there are, when the number is below 1 or above that.
CHOICES: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[str], int, Metric], list[int]]] = {
    "best": best,
    "per kind": per_kind,
    "diverse": diverse,
}
