"""Confusion counts, and what is read from them class by class."""

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are true classes, columns predicted ones."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def most_frequent_errors(counts: np.ndarray, most: int) -> list[tuple[int, int]]:
    """True and predicted class of the most frequent errors in counts (classes, classes), those with the most images first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    return [
        (int(true), int(predicted)) for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[true, predicted]
    ]


def class_f1(hits: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """F1 per class (..., classes); 0 for a class that nothing has and nothing got.

    Args:
        hits: images that have the class and got it (..., classes).
        ends: images that have it plus images that got it (..., classes).
    """
    return shares(2 * hits, ends)


def shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Parts over wholes, of one shape; 0 where the whole is 0."""
    return np.divide(parts, wholes, out=np.zeros(np.shape(parts)), where=wholes > 0)
