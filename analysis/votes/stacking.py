"""Stacking: how the answer follows from what all members say is learned, and kept as plain numbers."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.votes.folds import others, part_people
from analysis.votes.voting import LEAST
from trainables.metrics import Metric

FLOOR = 1e-6  # what a probability counts for at least: below, its logarithm says little and weighs much
STRENGTHS = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # inverse penalties, the most cautious first
BALANCE = 0.5  # for metrics in which all classes count alike: 1 lets them do so here, and rare ones lead astray; 0 lets all photos
ROUNDS = 30  # of boosting, at most
RATE = 0.1  # of what a tree says that is believed
DEPTH = 2  # splits in a row
LEAF = 5  # photos, at least
SAMPLE = 0.5  # share of the photos that a round sees
SEED = 0  # of what is drawn into the rounds


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression on the logarithms of all members' probabilities."""

    classes: tuple[int, ...]  # those that were there to learn from; all others get 0
    coefficients: tuple[tuple[float, ...], ...]  # (those classes, members * all classes)
    intercept: tuple[float, ...]  # (those classes,)
    kind: Literal["logistic"] = "logistic"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (photos, classes) of members (members, photos, classes)."""
        scores = features(probabilities) @ np.array(self.coefficients).T + np.array(self.intercept)
        return spread(softmax(scores), self.classes, probabilities.shape[2])


@dataclass(frozen=True)
class Tree:
    """A regression tree. Node 0 is the root; an inner node leads to `left` where its feature is at most its threshold."""

    column: int  # of Boosted.classes that it speaks for
    features: tuple[int, ...]  # of each node, below 0 for a leaf
    thresholds: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    values: tuple[float, ...]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Values (photos,) of features (photos, features)."""
        feature, threshold, left, right = (np.array(column) for column in (self.features, self.thresholds, self.left, self.right))
        rows, node = np.arange(len(inputs)), np.zeros(len(inputs), dtype=int)
        while (inner := feature[node] >= 0).any():
            below = np.where(inputs[rows, feature[node]] <= threshold[node], left[node], right[node])
            node = np.where(inner, below, node)
        return np.array(self.values)[node]


@dataclass(frozen=True)
class Boosted:
    """Gradient boosting over all members' probabilities: small trees, each of which mends a little of what those before left wrong."""

    classes: tuple[int, ...]  # those that were there to learn from; all others get 0
    start: tuple[float, ...]  # (those classes,) logarithms of how common they are
    rounds: tuple[tuple[Tree, ...], ...]
    kind: Literal["boosted"] = "boosted"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (photos, classes) of members (members, photos, classes)."""
        *_, last = self.stages(probabilities)
        return last

    def stages(self, probabilities: np.ndarray) -> Iterator[np.ndarray]:
        """Probabilities (photos, classes) before the first round and after each."""
        # scikit-learn grows its trees on single precision: a photo right at a threshold must fall to the same side.
        inputs = features(probabilities).astype(np.float32)
        scores = np.tile(np.array(self.start), (len(inputs), 1))
        yield spread(softmax(scores), self.classes, probabilities.shape[2])
        for trees in self.rounds:
            for tree in trees:
                scores[:, tree.column] += tree(inputs)
            yield spread(softmax(scores), self.classes, probabilities.shape[2])


def features(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms (photos, members * classes) of the probabilities (members, photos, classes), member by member."""
    return np.log(np.maximum(np.concatenate(probabilities, axis=1), FLOOR))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares (n, k) that sum to 1, of logits (n, k)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def spread(shares: np.ndarray, known: Sequence[int], classes: int) -> np.ndarray:
    """Shares (n, known classes) in the columns of all classes, 0 in the others."""
    whole = np.zeros((len(shares), classes))
    whole[:, list(known)] = shares
    return whole


def photo_weights(target: np.ndarray, metric: Metric) -> np.ndarray:
    """How much each photo counts (n,) when an answer is learned for a metric, which may hear rare classes as loud as common ones."""
    if not metric.balanced:
        return np.ones(len(target))
    _, place, counts = np.unique(target, return_inverse=True, return_counts=True)
    return (counts.mean() / counts[place]) ** BALANCE


def weighted_loss(probabilities: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    """The log loss of the true classes (n,), in nats, added up by weight (n,)."""
    return float(-weights @ np.log(np.maximum(probabilities[np.arange(len(target)), target], LEAST)))


def stack(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray, metric: Metric) -> Logistic:
    """Multinomial logistic regression; its penalty is the one with the lowest log loss on people that it was not fitted on.

    Source: Wolpert, Stacked Generalization, Neural Networks, 1992; Ting and Witten, Issues in Stacked Generalization, JAIR, 1999.
    """
    losses = np.zeros(len(STRENGTHS))
    weights = photo_weights(target, metric)
    for unseen in part_people(people, target):
        seen = others(unseen, len(target))
        path = logistics(probabilities[:, seen], target[seen], STRENGTHS, metric)
        losses += [weighted_loss(model(probabilities[:, unseen]), target[unseen], weights[unseen]) for model in path]
    return logistics(probabilities, target, STRENGTHS[: losses.argmin() + 1], metric)[-1]


def logistics(probabilities: np.ndarray, target: np.ndarray, strengths: Sequence[float], metric: Metric) -> list[Logistic]:
    """The regression for each inverse penalty; each goes on from the one before."""
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
    weights = photo_weights(target, metric)
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


def boost(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray, metric: Metric) -> Boosted:
    """Gradient boosting with as many rounds as have the lowest log loss on a fifth of the people, whom those rounds have not seen.

    Source: Friedman, Stochastic Gradient Boosting, Computational Statistics and Data Analysis, 2002.
    """
    rounds, weights = ROUNDS, photo_weights(target, metric)
    for unseen in part_people(people, target)[:1]:
        seen = others(unseen, len(target))
        stages = boosted(probabilities[:, seen], target[seen], ROUNDS, metric).stages(probabilities[:, unseen])
        rounds = int(np.argmin([weighted_loss(answer, target[unseen], weights[unseen]) for answer in stages]))
    return boosted(probabilities, target, rounds, metric)


def boosted(probabilities: np.ndarray, target: np.ndarray, rounds: int, metric: Metric) -> Boosted:
    """So many rounds of boosting."""
    from sklearn.ensemble import GradientBoostingClassifier

    weights = photo_weights(target, metric)
    classes, counts = np.unique(target), np.bincount(target, weights)
    shares = counts[classes] / counts.sum()
    plain = Boosted(tuple(classes.tolist()), tuple(np.log(shares).tolist()), ())
    if len(classes) == 1 or rounds == 0:
        return plain
    model = GradientBoostingClassifier(
        n_estimators=rounds,
        learning_rate=RATE,
        max_depth=DEPTH,
        min_samples_leaf=LEAF,
        subsample=SAMPLE,
        max_features="sqrt",
        random_state=SEED,
    ).fit(features(probabilities), target, sample_weight=weights)
    # Of two classes scikit-learn has trees for the second only, against the first.
    skipped = len(classes) - model.estimators_.shape[1]
    return replace(plain, rounds=tuple(tuple(as_tree(one.tree_, skipped + k) for k, one in enumerate(row)) for row in model.estimators_))


def as_tree(grown: Any, column: int) -> Tree:
    """A tree of scikit-learn in plain values, with the learning rate in them."""
    left, right, values = grown.children_left, grown.children_right, RATE * grown.value[:, 0, 0]
    return Tree(column, *(tuple(one.tolist()) for one in (grown.feature, grown.threshold, left, right, values)))
