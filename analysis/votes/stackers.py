"""Stackers beside the regression of `stacking`: a forest, support vector machines, nearest neighbours; each kept as plain numbers.

They are learned from what all members say of images whose classes are known. None is tried unless it is asked for by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.votes.arrays import Array, constant, entries, library, lowest, places
from analysis.votes.folds import others, part_groups
from analysis.votes.stacking import Logistic, features, image_weights, weighted_loss
from trainables.metrics import Metric

TREES = 100
DEPTH = 6  # of a tree, at most: what members say of an image is not much, and a file holds every leaf
LEAF = 5  # images in a leaf, at least
SEED = 0  # of what a forest draws
COST = 1.0  # of an image on the wrong side of a margin (C)
FARTHEST = 500.0  # logits beyond which a probability does not change
NEIGHBOURS = (5, 15, 45)  # that are tried
ALIKE = 1e-9  # squared distances that are one
BLOCK = 4_000_000  # distances that are held at a time


@dataclass(frozen=True)
class Forest:
    """A random forest on the logarithms of all members' probabilities: the nodes of all trees in one list."""

    classes: tuple[int, ...]  # those that were there to learn from; all others get 0
    roots: tuple[int, ...]  # where each tree begins
    depth: int  # steps from a root to the lowest leaf
    features: tuple[int, ...]  # that a node asks for
    thresholds: tuple[float, ...]  # up to which an image goes to the left
    left: tuple[int, ...]  # the node that follows; of a leaf, itself
    right: tuple[int, ...]
    leaves: tuple[int, ...]  # the row in `shares` of a leaf; 0 of other nodes
    shares: tuple[tuple[float, ...], ...]  # of the classes in each leaf
    kind: Literal["forest"] = "forest"

    def __call__(self, probabilities: Array) -> Array:
        """Probabilities (images, classes) of members (members, images, classes): the mean of the trees' leaves."""
        xp = library(probabilities)
        # scikit-learn's trees see single precision.
        inputs = xp.asarray(xp.asarray(features(probabilities), dtype=xp.float32), dtype=xp.float64)
        asked, left, right, leaves, roots = (places(one, inputs) for one in (self.features, self.left, self.right, self.leaves, self.roots))
        thresholds = constant(self.thresholds, inputs)
        node = roots[None] + xp.zeros_like(inputs[:, :1], dtype=xp.int64)
        for _ in range(self.depth):
            node = xp.where(entries(inputs, asked[node]) <= thresholds[node], left[node], right[node])
        found = constant(self.shares, inputs)[leaves[node]].mean(axis=1)
        return found @ constant(np.eye(probabilities.shape[2])[list(self.classes)], probabilities)


@dataclass(frozen=True)
class Machines:
    """One support vector machine with a radial kernel a class, on the logarithms of all members' probabilities; a sigmoid makes a
    probability of what each says, and these are brought to a sum of 1."""

    classes: tuple[int, ...]  # those that were there to learn from; all others get 0
    gamma: float  # of the kernel
    vectors: tuple[tuple[float, ...], ...]  # (vectors, members * all classes), of all machines together
    weights: tuple[tuple[float, ...], ...]  # (those classes, vectors)
    intercept: tuple[float, ...]  # (those classes,)
    slope: tuple[float, ...]  # of each sigmoid (those classes,)
    offset: tuple[float, ...]
    kind: Literal["machines"] = "machines"

    def __call__(self, probabilities: Array) -> Array:
        """Probabilities (images, classes) of members (members, images, classes)."""
        vectors, weights, intercept, slope, offset = (
            constant(one, probabilities) for one in (self.vectors, self.weights, self.intercept, self.slope, self.offset)
        )
        xp = library(probabilities)
        said = xp.exp(-self.gamma * distances(features(probabilities), vectors)) @ weights.T + intercept
        odds = xp.exp((said * slope + offset).clip(min=-FARTHEST, max=FARTHEST))
        shares = odds / (1 + odds)
        shares = shares / shares.sum(axis=1, keepdims=True)
        return shares @ constant(np.eye(probabilities.shape[2])[list(self.classes)], probabilities)


@dataclass(frozen=True)
class Neighbours:
    """The shares of the classes among the images that members say the most similar things of."""

    count: int  # of neighbours; all that are as far away as the last are heard, too
    points: tuple[tuple[float, ...], ...]  # (images, members * classes), what members say of those learned from
    targets: tuple[int, ...]  # their classes
    kind: Literal["neighbours"] = "neighbours"

    def __call__(self, probabilities: Array) -> Array:
        """Shares (images, classes) of members (members, images, classes)."""
        points, images = constant(self.points, probabilities), probabilities.shape[1]
        classes = constant(np.eye(probabilities.shape[2])[list(self.targets)], probabilities)
        if not isinstance(probabilities, np.ndarray):
            return self._answer(probabilities, points, classes)
        rows = max(1, BLOCK // len(self.points))
        return np.concatenate([self._answer(probabilities[:, at : at + rows], points, classes) for at in range(0, images, rows)])

    def _answer(self, probabilities: Array, points: Array, classes: Array) -> Array:
        xp = library(probabilities)
        away = distances(xp.concatenate(tuple(probabilities), axis=1), points)
        near = xp.asarray(away <= lowest(away, self.count) + ALIKE, dtype=xp.float64)
        return near @ classes / near.sum(axis=1, keepdims=True)


def distances(inputs: Array, points: Array) -> Array:
    """Squared Euclidean distances (n, m) of inputs (n, k) from points (m, k)."""
    apart = (inputs**2).sum(axis=1, keepdims=True) - 2 * (inputs @ points.T) + (points**2).sum(axis=1)
    return apart.clip(min=0)


def stack_forest(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Forest:
    """A random forest of shallow trees.

    Source: Breiman, Random Forests, Machine Learning, 2001.
    """
    # Imported here: scikit-learn takes a second, and --help should not.
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(TREES, max_depth=DEPTH, min_samples_leaf=LEAF, random_state=SEED)
    model.fit(features(probabilities), target, sample_weight=image_weights(target, metric))
    trees = [one.tree_ for one in model.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])
    own = np.arange(roots[-1])
    asked, thresholds = (np.concatenate([getattr(tree, name) for tree in trees]) for name in ("feature", "threshold"))
    leaf = asked < 0
    ways = [
        np.where(leaf, own, np.concatenate([root + getattr(tree, name) for root, tree in zip(roots[:-1], trees, strict=True)]))
        for name in ("children_left", "children_right")
    ]
    values = np.concatenate([tree.value[:, 0] for tree in trees])[leaf]
    return Forest(
        classes=tuple(model.classes_.tolist()),
        roots=tuple(roots[:-1].tolist()),
        depth=max(one.get_depth() for one in model.estimators_),
        features=tuple(np.where(leaf, 0, asked).tolist()),
        thresholds=tuple(np.where(leaf, 0.0, thresholds).tolist()),
        left=tuple(ways[0].tolist()),
        right=tuple(ways[1].tolist()),
        leaves=tuple(np.where(leaf, leaf.cumsum() - 1, 0).tolist()),
        shares=tuple(map(tuple, (values / values.sum(axis=1, keepdims=True)).tolist())),
    )


def stack_svm(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Machines | Logistic:
    """One machine a class against all others; its sigmoid is fitted on what machines say of groups that they were not fitted on.

    Sources: Cortes and Vapnik, Support-Vector Networks, Machine Learning, 1995; Platt, Probabilistic Outputs for Support Vector Machines,
    1999.
    """
    inputs, classes, weights = features(probabilities), np.unique(target), image_weights(target, metric)
    if len(classes) == 1:
        return Logistic(tuple(classes.tolist()), ((0.0,) * inputs.shape[1],), (0.0,))
    said = np.zeros((len(target), len(classes)))
    parts = part_groups(groups, target)
    for unseen in parts:
        seen = others(unseen, len(target))
        for column, machine in enumerate(_machines(inputs[seen], target[seen], classes, weights[seen])):
            # Whoever has not seen a class, or nothing else, cannot tell.
            said[unseen, column] = machine.decision_function(inputs[unseen]) if machine else -1.0
    machines = list(_machines(inputs, target, classes, weights))
    if not parts:  # a single group: there are no others to ask
        said = np.stack([machine.decision_function(inputs) for machine in machines if machine], axis=1)
    sigmoids = [_platt(one, target == number) for one, number in zip(said.T, classes, strict=True)]
    kept = np.unique(np.concatenate([machine.support_ for machine in machines if machine]))
    shares = np.zeros((len(classes), len(target)))
    for row, machine in enumerate(machines):
        shares[row, machine.support_] = machine.dual_coef_[0]
    return Machines(
        classes=tuple(classes.tolist()),
        gamma=_gamma(inputs),
        vectors=tuple(map(tuple, inputs[kept].tolist())),
        weights=tuple(map(tuple, shares[:, kept].tolist())),
        intercept=tuple(float(machine.intercept_[0]) for machine in machines),
        slope=tuple(slope for slope, _ in sigmoids),
        offset=tuple(offset for _, offset in sigmoids),
    )


def stack_knn(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Neighbours:
    """The nearest neighbours, as many as have the lowest log loss on other groups. All images count alike.

    Source: Cover and Hart, Nearest Neighbor Pattern Classification, IEEE Transactions on Information Theory, 1967.
    """
    everything, losses = np.arange(len(target)), np.zeros(len(NEIGHBOURS))
    weights = image_weights(target, metric)
    for unseen in part_groups(groups, target):
        seen = others(unseen, len(target))
        answers = [_neighbours(probabilities, target, seen, count)(probabilities[:, unseen]) for count in NEIGHBOURS]
        losses += [weighted_loss(answer, target[unseen], weights[unseen]) for answer in answers]
    return _neighbours(probabilities, target, everything, NEIGHBOURS[int(losses.argmin())])


def _neighbours(probabilities: np.ndarray, target: np.ndarray, rows: np.ndarray, count: int) -> Neighbours:
    points = np.concatenate(tuple(probabilities[:, rows]), axis=1)
    return Neighbours(min(count, len(rows)), tuple(map(tuple, points.tolist())), tuple(target[rows].tolist()))


def _machines(inputs: np.ndarray, target: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> Iterator:
    """The machine of each class; None where there is nothing to tell it from, or nothing of it."""
    from sklearn.svm import SVC

    for number in classes:
        own = target == number
        yield SVC(C=COST, gamma=_gamma(inputs)).fit(inputs, own, sample_weight=weights) if own.any() and not own.all() else None


def _gamma(inputs: np.ndarray) -> float:
    """The kernel's width, as scikit-learn scales it."""
    spread = float(inputs.var())
    return 1 / (inputs.shape[1] * spread) if spread else 1.0


def _platt(said: np.ndarray, own: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logit of being of a class (n,), of what its machine says (n,); no image counts as certain."""
    from sklearn.linear_model import LogisticRegression

    there, elsewhere = own.sum(), (~own).sum()
    sure = np.where(own, (there + 1) / (there + 2), 1 / (elsewhere + 2))
    # Each image is both, each for as much as it is.
    rows, labels = np.concatenate([said, said])[:, None], np.repeat([1, 0], len(said))
    model = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit(rows, labels, sample_weight=np.concatenate([sure, 1 - sure]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])
