"""Stacking: how the answer follows from what all members say is learned, and kept as plain numbers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.votes.arrays import Array, constant, library
from analysis.votes.folds import others, part_groups
from analysis.votes.voting import LEAST
from trainables.metrics import Metric

FLOOR = 1e-6  # what a probability counts for at least: below, its logarithm says little and weighs much
STRENGTHS = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # inverse penalties, the most cautious first
BALANCE = 0.5  # for metrics in which all classes count alike: 1 lets them do so here, and rare ones lead astray; 0 lets all images


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression on the logarithms of all members' probabilities."""

    classes: tuple[int, ...]  # those that were there to learn from; all others get 0
    coefficients: tuple[tuple[float, ...], ...]  # (those classes, members * all classes)
    intercept: tuple[float, ...]  # (those classes,)
    kind: Literal["logistic"] = "logistic"

    def __call__(self, probabilities: Array) -> Array:
        """Probabilities (images, classes) of members (members, images, classes)."""
        coefficients, intercept = (constant(numbers, probabilities) for numbers in (self.coefficients, self.intercept))
        shares = softmax(features(probabilities) @ coefficients.T + intercept)
        # In the columns of all classes, 0 in those that are not known.
        return shares @ constant(np.eye(probabilities.shape[2])[list(self.classes)], probabilities)


def features(probabilities: Array) -> Array:
    """Logarithms (images, members * classes) of the probabilities (members, images, classes), member by member."""
    xp = library(probabilities)
    return xp.log(xp.concatenate(tuple(probabilities), axis=1).clip(min=FLOOR))


def softmax(scores: Array) -> Array:
    """Shares (n, k) that sum to 1, of logits (n, k)."""
    xp = library(scores)
    powers = xp.exp(scores - xp.amax(scores, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def image_weights(target: np.ndarray, metric: Metric) -> np.ndarray:
    """How much each image counts (n,) when an answer is learned for a metric, which may hear rare classes as loud as common ones."""
    if not metric.balanced:
        return np.ones(len(target))
    _, place, counts = np.unique(target, return_inverse=True, return_counts=True)
    return (counts.mean() / counts[place]) ** BALANCE


def weighted_loss(probabilities: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    """The log loss of the true classes (n,), in nats, added up by weight (n,)."""
    return float(-weights @ np.log(np.maximum(probabilities[np.arange(len(target)), target], LEAST)))


def stack(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Logistic:
    """Multinomial logistic regression; its penalty is the one with the lowest log loss on groups that it was not fitted on.

    Source: Wolpert, Stacked Generalization, Neural Networks, 1992; Ting and Witten, Issues in Stacked Generalization, JAIR, 1999.
    """
    losses = np.zeros(len(STRENGTHS))
    weights = image_weights(target, metric)
    for unseen in part_groups(groups, target):
        seen = others(unseen, len(target))
        path = logistics(probabilities[:, seen], target[seen], STRENGTHS, metric)
        losses += [weighted_loss(model(probabilities[:, unseen]), target[unseen], weights[unseen]) for model in path]
    return logistics(probabilities, target, STRENGTHS[: losses.argmin() + 1], metric)[-1]


def logistics(probabilities: np.ndarray, target: np.ndarray, strengths: Sequence[float], metric: Metric) -> list[Logistic]:
    """The regression for each inverse penalty; each starts from the one before."""
    # Imported here: scikit-learn takes a second, and --help should not.
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    classes = tuple(np.unique(target).tolist())
    inputs = features(probabilities)
    if len(classes) == 1:
        return [Logistic(classes, ((0.0,) * inputs.shape[1],), (0.0,))] * len(strengths)
    # Standardised, the features are far better conditioned, and one penalty suits them all. A feature that never changes says nothing.
    middle, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale == 0] = 1
    weights = image_weights(target, metric)
    model = LogisticRegression(warm_start=True, max_iter=1000)
    path = []
    # The matrices are small: threads would wait for each other most of the time, and their number would change the last bits.
    with threadpool_limits(1), warnings.catch_warnings():
        # Of few images of many classes scikit-learn wonders whether they are classes at all.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        for strength in strengths:
            model.set_params(C=strength).fit((inputs - middle) / scale, target, sample_weight=weights)
            coefficients = model.coef_ / scale
            intercept = model.intercept_ - coefficients @ middle
            if len(classes) == 2:  # scikit-learn has one row then, of the second class against the first
                coefficients, intercept = (np.concatenate([0 * one, one]) for one in (coefficients, intercept))
            path.append(Logistic(classes, tuple(map(tuple, coefficients.tolist())), tuple(intercept.tolist())))
    return path
