"""Inner folds over groups: what is fitted on all but one is evaluated on that one, and no group is in two."""

import warnings

import numpy as np

from trainables.data.images import strata_of

FOLDS = 5


def part_groups(groups: np.ndarray, target: np.ndarray, seed: int = 0) -> tuple[np.ndarray, ...]:
    """The rows of each fold: whole groups (n,), what is true of the images spread as evenly as it can be (`strata_of`).

    Where every class has fewer images than there are folds, no class can be in each of them: groups are spread at random then. There are
    fewer folds where there are fewer groups, down to leaving one group out, and none where there is one group only.
    """
    # Imported here: scikit-learn takes a second, and --help should not.
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    target = strata_of(target)
    count = min(FOLDS, len(np.unique(groups)))
    if count < 2:
        return ()
    stratified = np.unique(target, return_counts=True)[1].max() >= count
    kind = StratifiedGroupKFold if stratified else GroupKFold
    with warnings.catch_warnings():
        # A class of few groups cannot be in every fold, and nothing else is expected of it.
        warnings.filterwarnings("ignore", "The least populated class")
        # pyrefly: ignore[unexpected-keyword]  the stubs of GroupKFold are of scikit-learn 1.5
        folds = kind(count, shuffle=True, random_state=seed).split(groups, target, groups)
        # Of few groups, stratification may leave a fold without any.
        return tuple(rows for _, rows in folds if len(rows))


def others(rows: np.ndarray, count: int) -> np.ndarray:
    """All rows below `count` but these."""
    return np.setdiff1d(np.arange(count), rows)
