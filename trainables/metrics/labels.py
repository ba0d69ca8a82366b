"""Metrics of labels: only which class is the most probable counts. All of them are functions of sums."""

from typing import TYPE_CHECKING

import numpy as np

from trainables.metrics.confusion import class_f1, shares
from trainables.metrics.metric import Metric, Summed

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def indicators(width: int, *columns: tuple[np.ndarray, np.ndarray | int]) -> "csr_array":
    """Rows (n, width) of single precision that are 0 but in a few columns.

    Args:
        columns: (columns (n,), values (n,) or 1), what is added in a column of each row; several may be the same.
    """
    # Imported here: it takes a while, and --help should not.
    from scipy.sparse import csr_array

    rows = len(columns[0][0])
    places = np.stack([column for column, _ in columns], axis=1)
    values = np.stack([np.broadcast_to(value, rows) for _, value in columns], axis=1).astype(np.float32)
    return csr_array((values.ravel(), places.ravel(), np.arange(rows + 1) * len(columns)), shape=(rows, width))


def hits_and_ends(truth: np.ndarray, predicted: np.ndarray, classes: int) -> "csr_array":
    """All that macro F1 takes of an image (n, 2 classes): in which class it is right, then its true and its predicted class."""
    return indicators(2 * classes, (truth, truth == predicted), (classes + truth, 1), (classes + predicted, 1))


def f1_macro(sums: np.ndarray) -> np.ndarray:
    """Mean F1 over ALL classes: one that is absent from truth and answer counts as 0."""
    return class_f1(*_blocks(sums, 2)).mean(axis=-1)


def f1_macro_slope(sums: np.ndarray) -> np.ndarray:
    hits, ends = _blocks(sums, 2)
    share = shares(np.ones_like(ends), ends) / ends.shape[-1]
    return np.concatenate([2 * share, -class_f1(hits, ends) * share], axis=-1)


def hits_true_predicted(truth: np.ndarray, predicted: np.ndarray, classes: int) -> "csr_array":
    """In which class an image is right, its true class and its predicted class (n, 3 classes)."""
    return indicators(3 * classes, (truth, truth == predicted), (classes + truth, 1), (2 * classes + predicted, 1))


def f1_weighted(sums: np.ndarray) -> np.ndarray:
    """Mean F1 over classes by how many images have each."""
    hits, true, predicted = _blocks(sums, 3)
    return shares((true * class_f1(hits, true + predicted)).sum(axis=-1), true.sum(axis=-1))


def f1_weighted_slope(sums: np.ndarray) -> np.ndarray:
    hits, true, predicted = _blocks(sums, 3)
    f1, images = class_f1(hits, true + predicted), np.maximum(true.sum(axis=-1, keepdims=True), 1e-300)
    share = shares(true, true + predicted) / images
    return np.concatenate([2 * share, (f1 - f1_weighted(sums)[..., None]) / images - share * f1, -share * f1], axis=-1)


def hits_and_true(truth: np.ndarray, predicted: np.ndarray, classes: int) -> "csr_array":
    """In which class an image is right, and its true class (n, 2 classes)."""
    return indicators(2 * classes, (truth, truth == predicted), (classes + truth, 1))


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that some image has."""
    hits, true = _blocks(sums, 2)
    return shares(shares(hits, true).sum(axis=-1), (true > 0).sum(axis=-1))


def balanced_accuracy_slope(sums: np.ndarray) -> np.ndarray:
    hits, true = _blocks(sums, 2)
    share = shares(np.ones_like(true), true) / np.maximum((true > 0).sum(axis=-1, keepdims=True), 1)
    return np.concatenate([share, -shares(hits, true) * share], axis=-1)


def each(values: np.ndarray) -> np.ndarray:
    """What a mean over images takes of each: its value (n,), and 1 (n, 2). Whether something is so is whole, and takes single precision."""
    numbers = values.astype(np.float32 if values.dtype == bool else float)
    return np.stack([numbers, np.ones_like(numbers)], axis=1)


def right(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Whether an image is right, and 1 (n, 2)."""
    return each(truth == predicted)


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean over images, of a sum and the count of images (..., 2); 0 of no images."""
    return shares(sums[..., 0], sums[..., 1])


def mean_slope(sums: np.ndarray) -> np.ndarray:
    images = np.maximum(sums[..., 1], 1e-300)
    return np.stack([1 / images, -mean(sums) / images], axis=-1)


def right_true_predicted(truth: np.ndarray, predicted: np.ndarray, classes: int) -> "csr_array":
    """Whether an image is right, its true class and its predicted class (n, 1 + 2 classes)."""
    return indicators(1 + 2 * classes, (np.zeros_like(truth), truth == predicted), (1 + truth, 1), (1 + classes + predicted, 1))


def cohen_kappa(sums: np.ndarray) -> np.ndarray:
    """How much more often than by chance an answer is right, in shares of what is left to chance; 0 where nothing is left to it.

    Source: Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement, 1960.
    """
    _, _, images, beyond, by_chance = _agreement(sums)
    return shares(beyond, images**2 - by_chance)[..., 0]


def cohen_kappa_slope(sums: np.ndarray) -> np.ndarray:
    true, predicted, images, beyond, by_chance = _agreement(sums)
    right, left = sums[..., :1], images**2 - by_chance
    inverse = shares(np.ones_like(left), left)
    by_true = (right - predicted) * inverse - beyond * (2 * images - predicted) * inverse**2
    by_predicted = true * (right * images - images**2) * inverse**2
    return np.concatenate([images * inverse, by_true, by_predicted], axis=-1)


def matthews_corrcoef(sums: np.ndarray) -> np.ndarray:
    """The correlation of true and predicted classes, from -1 to 1; 0 where all images have one class or all got one.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, Computational Biology and
        Chemistry, 2004.
    """
    true, predicted, images, beyond, _ = _agreement(sums)
    of_true, of_predicted = (images**2 - (one**2).sum(axis=-1, keepdims=True) for one in (true, predicted))
    return shares(beyond, np.sqrt(np.maximum(of_true * of_predicted, 0)))[..., 0]


def matthews_corrcoef_slope(sums: np.ndarray) -> np.ndarray:
    true, predicted, images, beyond, _ = _agreement(sums)
    of_true, of_predicted = (images**2 - (one**2).sum(axis=-1, keepdims=True) for one in (true, predicted))
    inverse = shares(np.ones_like(images), np.sqrt(np.maximum(of_true * of_predicted, 0)))
    score = beyond * inverse
    per_true, per_predicted = (shares(np.ones_like(one), one) for one in (of_true, of_predicted))
    by_true = (sums[..., :1] - predicted) * inverse - score * (images * per_predicted + (images - true) * per_true)
    by_predicted = -true * inverse + score * predicted * per_predicted
    return np.concatenate([images * inverse, by_true, by_predicted], axis=-1)


def _agreement(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Images per true and per predicted class (..., classes), all images (..., 1), and times the count of images those that are right
    beyond chance (..., 1) and those that are right by chance (..., 1)."""
    true, predicted = np.split(sums[..., 1:], 2, axis=-1)
    images, by_chance = true.sum(axis=-1, keepdims=True), (true * predicted).sum(axis=-1, keepdims=True)
    return true, predicted, images, sums[..., :1] * images - by_chance, by_chance


def moments(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """All that the quadratic kappa takes of an image (n, 6): 1, and of its true class t and predicted class p: t, p, t², p², (t - p)²."""
    true, answer = truth.astype(float), predicted.astype(float)
    return np.stack([np.ones(len(true)), true, answer, true**2, answer**2, (true - answer) ** 2], axis=1)


def quadratic_kappa(sums: np.ndarray) -> np.ndarray:
    """1 minus the squared distance from the truth, in shares of what it would be by chance; 0 where all images have one and the same class.

    Source: Cohen, Weighted kappa, Psychological Bulletin, 1968.
    """
    apart, by_chance = _kappa_parts(sums)
    return np.where(by_chance > 0, 1 - shares(apart, by_chance), 0.0)


def quadratic_kappa_slope(sums: np.ndarray) -> np.ndarray:
    images, true, answer, true_squares, answer_squares, distance = np.moveaxis(sums, -1, 0)
    apart, by_chance = _kappa_parts(sums)
    inverse = shares(np.ones_like(by_chance), by_chance)
    through = apart * inverse**2  # by what more is expected by chance the score rises
    return np.stack(
        [
            -distance * inverse + through * (true_squares + answer_squares),
            -2 * through * answer,
            -2 * through * true,
            through * images,
            through * images,
            -images * inverse,
        ],
        axis=-1,
    )


def _kappa_parts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (...) from the truth, and by chance, both times the square of the count of images."""
    images, true, answer, true_squares, answer_squares, distance = np.moveaxis(sums, -1, 0)
    by_chance = images * (true_squares + answer_squares) - 2 * true * answer
    # Of images of one class this is 0 but for rounding.
    return images * distance, np.where(by_chance > 1e-12 * images * (true_squares + answer_squares), by_chance, 0.0)


def _blocks(sums: np.ndarray, count: int) -> list[np.ndarray]:
    return np.split(sums, count, axis=-1)


LABEL_METRICS = (
    Metric(
        "f1_macro",
        "macro F1",
        formula=Summed(hits_and_ends, f1_macro, f1_macro_slope),
        balanced=True,
        explained="Macro F1 runs from 0 to 1 and is the mean over all classes of how well each is recognised: a rare class counts as much "
        "as a common one.",
        unseen="count as 0 in macro F1",
    ),
    Metric(
        "f1_weighted",
        "weighted F1",
        formula=Summed(hits_true_predicted, f1_weighted, f1_weighted_slope),
        explained="Weighted F1 runs from 0 to 1 and is the mean over classes of how well each is recognised: a class counts for as much as "
        "it has images.",
    ),
    Metric(
        "accuracy",
        "accuracy",
        formula=Summed(right, mean, mean_slope),
        explained="Accuracy is the share of images whose class is right; where one class has most images it says little of the others.",
    ),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        formula=Summed(hits_and_true, balanced_accuracy, balanced_accuracy_slope),
        balanced=True,
        explained="Balanced accuracy is the mean over classes of the share of its images that are recognised: a rare class counts as much "
        "as a common one.",
        unseen="are left out of the balanced accuracy",
    ),
    Metric(
        "cohen_kappa",
        "kappa",
        formula=Summed(right_true_predicted, cohen_kappa, cohen_kappa_slope),
        bounds=(-1.0, 1.0),
        chance=lambda classes: 0.0,
        explained="Kappa runs from -1 to 1 and is how much more often than by chance the class is right: 0 is what chance reaches.",
    ),
    Metric(
        "matthews_corrcoef",
        "Matthews correlation",
        formula=Summed(right_true_predicted, matthews_corrcoef, matthews_corrcoef_slope),
        bounds=(-1.0, 1.0),
        chance=lambda classes: 0.0,
        explained="The Matthews correlation of true and predicted classes runs from -1 to 1, where 0 is what chance reaches.",
    ),
    Metric(
        "quadratic_kappa",
        "quadratic kappa",
        formula=Summed(moments, quadratic_kappa, quadratic_kappa_slope),
        bounds=(-1.0, 1.0),
        chance=lambda classes: 0.0,
        explained="Quadratic kappa runs from -1 to 1, where 0 is what chance reaches: a class far from the true one costs more than its "
        "neighbour, by the square of the distance.",
    ),
)
