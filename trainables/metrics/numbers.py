"""Metrics of a number, such as an age: truth is (n,), prediction (n, 1), in the units of the data."""

import numpy as np

from trainables.metrics.confusion import shares
from trainables.metrics.labels import each, mean, mean_slope
from trainables.metrics.metric import Metric, Summed


def distance(truth: np.ndarray, predicted: np.ndarray, width: int) -> np.ndarray:
    """Minus the distance of an image's prediction from its number, and 1 (n, 2)."""
    return each(-np.abs(truth - predicted[:, 0]))


def relative_distance(truth: np.ndarray, predicted: np.ndarray, width: int) -> np.ndarray:
    """Minus the distance in shares of the number, which counts as at least the smallest step of its type, and 1 (n, 2)."""
    return each(-np.abs(truth - predicted[:, 0]) / np.maximum(np.abs(truth), np.finfo(float).eps))


def squares(truth: np.ndarray, predicted: np.ndarray, width: int) -> np.ndarray:
    """1, an image's number, the square of it, and the squared distance of the prediction from it (n, 4)."""
    return np.stack([np.ones(len(truth)), truth, truth**2, (truth - predicted[:, 0]) ** 2], axis=1)


def root_mean_square(sums: np.ndarray) -> np.ndarray:
    """Minus the root of the mean squared distance; 0 of no images."""
    return -np.sqrt(shares(sums[..., 3], sums[..., 0]))


def root_mean_square_slope(sums: np.ndarray) -> np.ndarray:
    images, score = np.maximum(sums[..., 0], 1e-300), root_mean_square(sums)
    by_square = shares(np.ones_like(score), 2 * -score * images) * -1
    found = np.zeros_like(sums)
    found[..., 0], found[..., 3] = -by_square * score**2, by_square
    return found


def r2(sums: np.ndarray) -> np.ndarray:
    """1 minus the squared distance in shares of that of the mean number; where all numbers are one, 1 if all are right, else 0."""
    spread, missed = _spread(sums), sums[..., 3]
    return np.where(spread > 0, 1 - shares(missed, spread), (missed == 0).astype(float))


def r2_slope(sums: np.ndarray) -> np.ndarray:
    images, total, _, missed = np.moveaxis(sums, -1, 0)
    spread = _spread(sums)
    inverse = shares(np.ones_like(spread), spread)
    through, average = missed * inverse**2, shares(total, images)
    return np.stack([through * average**2, -2 * through * average, through, -inverse], axis=-1)


def _spread(sums: np.ndarray) -> np.ndarray:
    """Squared distances (...) of the numbers from their mean; 0 where all are one, which they are but for rounding."""
    images, total, squared, _ = np.moveaxis(sums, -1, 0)
    spread = squared - shares(total**2, images)
    return np.where(spread > 1e-12 * squared, spread, 0.0)


def spearman(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The correlation of the ranks of true and predicted numbers (m,), 0 where either is constant; weights are (m, n).

    Source: Spearman, The proof and measurement of association between two things, American Journal of Psychology, 1904.
    """
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    true, answer = (_ranks(values, weights) for values in (truth, predicted[:, 0]))
    true, answer = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in (true, answer))
    together, of_true, of_answer = ((weights * one).sum(axis=1) for one in (true * answer, true**2, answer**2))
    spread = np.sqrt(of_true * of_answer)
    return np.divide(together, spread, out=np.zeros(len(weights)), where=spread > 1e-9 * total[:, 0])


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean rank (m, n) of each value where it is there so often (m, n)."""
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    per_level = np.add.reduceat(weights[:, order], np.flatnonzero(np.diff(level[order], prepend=-1)), axis=1)
    return (per_level.cumsum(axis=1) - per_level / 2)[:, level]


NUMBER_METRICS = (
    Metric(
        "neg_mean_absolute_error",
        "negative MAE",
        formula=Summed(distance, mean, mean_slope),
        target="number",
        takes="values",
        bounds=(-np.inf, 0.0),
        chance=lambda width: -np.inf,
        explained="The negative MAE (negative mean absolute error) is minus the mean distance from the true number, in its units: "
        "0 is perfect.",
    ),
    Metric(
        "neg_root_mean_squared_error",
        "negative RMSE",
        formula=Summed(squares, root_mean_square, root_mean_square_slope),
        target="number",
        takes="values",
        bounds=(-np.inf, 0.0),
        chance=lambda width: -np.inf,
        explained="The negative RMSE (negative root mean squared error) is minus the root of the mean squared distance from the true "
        "number, in its units: large mistakes count most.",
    ),
    Metric(
        "r2",
        "R2",
        formula=Summed(squares, r2, r2_slope),
        target="number",
        takes="values",
        bounds=(-np.inf, 1.0),
        chance=lambda width: 0.0,
        explained="R2 is the share of the numbers' variance that is explained: 1 is perfect, 0 is what the mean number reaches.",
    ),
    Metric(
        "neg_mean_absolute_percentage_error",
        "negative MAPE",
        formula=Summed(relative_distance, mean, mean_slope),
        target="number",
        takes="values",
        bounds=(-np.inf, 0.0),
        chance=lambda width: -np.inf,
        explained="The negative MAPE (negative mean absolute percentage error) is minus the mean distance in shares of the true number: "
        "0 is perfect.",
    ),
    Metric(
        "spearman",
        "rank correlation",
        formula=spearman,
        target="number",
        takes="values",
        bounds=(-1.0, 1.0),
        chance=lambda width: 0.0,
        explained="The rank correlation says how well predictions order the images: 1 is perfect, 0 is chance.",
    ),
)
