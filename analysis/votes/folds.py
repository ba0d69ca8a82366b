"""Parting people into folds: what is fitted on all but one is judged on that one, and nobody is on both sides."""

import warnings

import numpy as np

FOLDS = 5


def part_people(people: np.ndarray, target: np.ndarray, seed: int = 0) -> tuple[np.ndarray, ...]:
    """The rows of each fold: whole people, classes spread as evenly as they can be.

    There are fewer folds where there are fewer people, and none where there is one person only.
    """
    # Imported here: scikit-learn takes a second, and --help should not.
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(FOLDS, len(np.unique(people)))
    if count < 2:
        return ()
    with warnings.catch_warnings():
        # A class of few people cannot be in every fold, and nothing else is expected of it.
        warnings.filterwarnings("ignore", "The least populated class")
        parted = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(people, target, people)
        return tuple(rows for _, rows in parted)


def others(rows: np.ndarray, count: int) -> np.ndarray:
    """All rows below `count` but these."""
    return np.setdiff1d(np.arange(count), rows)
