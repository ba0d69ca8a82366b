"""What makes an answer is written once, for arrays of numpy and tensors of torch: an export is the very code that was evaluated.

Functions and arguments are called by numpy's names, which torch takes too. Probabilities are in float64 in both, so that what decides
at thresholds decides alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainables.data.targets import Array


def library(array: Array) -> Any:
    """The module whose functions take the array: numpy, or torch."""
    if isinstance(array, np.ndarray):
        return np
    # Imported here: it takes seconds, and whoever has a tensor has waited for it already.
    import torch

    return torch


def constant(numbers: Sequence | np.ndarray, like: Array) -> Array:
    """Fitted numbers as an array of the library that the other array is of, float64."""
    xp = library(like)
    return xp.asarray(numbers, dtype=xp.float64)


def picked(classes: Array, count: int) -> Array:
    """A row (n, count) for each class (n,): 1.0 at the class, 0.0 elsewhere."""
    xp = library(classes)
    return xp.eye(count, dtype=xp.float64)[classes]


def ratio(above: Array, below: Array, otherwise: Array) -> Array:
    """One over the other where that is above 0; elsewhere what is given for it."""
    xp = library(above)
    return xp.where(below > 0, above / xp.where(below > 0, below, 1.0), otherwise)


def places(numbers: Sequence[int], like: Array) -> Array:
    """Fitted integers, by which arrays are indexed, as an array of the library that the other array is of."""
    xp = library(like)
    return xp.asarray(numbers, dtype=xp.int64)


def entries(array: Array, index: Array) -> Array:
    """Of each row of an array (n, columns) those entries (n, k) that an index (n, k) names."""
    return np.take_along_axis(array, index, axis=1) if isinstance(array, np.ndarray) else array.gather(1, index)


def lowest(array: Array, count: int) -> Array:
    """Of each row (n, columns) the number (n, 1) that so many are not above."""
    if isinstance(array, np.ndarray):
        return np.partition(array, count - 1, axis=1)[:, [count - 1]]
    return library(array).topk(array, count, dim=1, largest=False).values[:, -1:]
