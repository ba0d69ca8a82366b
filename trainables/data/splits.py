"""Who trains, who validates, who is held out: whole people, stratified by joint class, made once a run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trainables.config import DataConfig
from trainables.data.photos import DataError, Photos

HOLDOUT = -1


@dataclass(frozen=True)
class Split:
    """Which part each photo belongs to."""

    part: np.ndarray  # (n,) HOLDOUT or the number of a fold
    fold: int  # the fold that validates
    hash: str  # of photos, labels and parts; records with different hashes are never compared

    @property
    def train(self) -> np.ndarray:
        """Indices of the training photos."""
        return np.flatnonzero((self.part != HOLDOUT) & (self.part != self.fold))

    @property
    def valid(self) -> np.ndarray:
        """Indices of the validation photos."""
        return np.flatnonzero(self.part == self.fold)

    @property
    def holdout(self) -> np.ndarray:
        """Indices of the photos that the search never sees."""
        return np.flatnonzero(self.part == HOLDOUT)


def split_people(photos: Photos, settings: DataConfig, seed: int) -> Split:
    """Hold a share of the people out, part the others into folds.

    A person counts for stratification as the joint class of most of their photos, so a gender or age band is spread
    evenly, and classes that are single shots of everybody follow.

    Raises: DataError when a class has fewer people than there are sides.
    """
    # Imported here: scikit-learn takes longer than many an epoch, and the trials, which import this module, never split.
    from sklearn.model_selection import StratifiedKFold, train_test_split

    if settings.fold >= settings.folds:
        raise DataError(f"data/fold is {settings.fold}, but the folds are 0 to {settings.folds - 1}.")
    classes = photos.scheme.joint(photos.labels)
    persons, person = np.unique(photos.people, return_inverse=True)
    has = np.zeros((len(persons), photos.scheme.classes), dtype=int)
    np.add.at(has, (person, classes), 1)
    _refuse_rare_classes(photos, has, settings)

    strata = has.argmax(axis=1)
    people = np.arange(len(persons))
    part = np.full(len(persons), HOLDOUT)
    try:
        rest, _ = train_test_split(people, test_size=settings.holdout, stratify=strata, random_state=seed)
    except ValueError:
        kinds = len(np.unique(strata))
        raise DataError(
            f"{len(persons)} people are too few to hold {settings.holdout:.0%} of them out: the hold-out needs one of each of "
            f"{kinds} kinds of people. Add photos or raise data/holdout."
        ) from None
    folds = StratifiedKFold(settings.folds, shuffle=True, random_state=seed)
    for number, (_, members) in enumerate(folds.split(rest, strata[rest])):
        part[rest[members]] = number
    parts = part[person]
    lines = (f"{name} {label} {side}" for name, label, side in zip(photos.ids, classes, parts, strict=True))
    digest = hashlib.sha256("\n".join([str(settings.fold), *lines]).encode()).hexdigest()
    return Split(parts, settings.fold, digest[:16])


def write_split(file: Path, photos: Photos, split: Split) -> None:
    """The split as a table for people and for later reading: photo, person, class, part."""
    names = photos.scheme.class_names()
    pd.DataFrame(
        {
            "photo": photos.ids,
            "person": photos.people,
            "class": [names[label] for label in photos.scheme.joint(photos.labels)],
            "part": ["holdout" if side == HOLDOUT else f"fold {side}" for side in split.part],
        }
    ).to_csv(file, index=False)


def absent_classes(photos: Photos) -> list[str]:
    """Names of the joint classes that no photo has; each counts as 0 in macro F1."""
    return photos.scheme.absent(photos.scheme.joint(photos.labels))


def _refuse_rare_classes(photos: Photos, has: np.ndarray, settings: DataConfig) -> None:
    people_with = (has > 0).sum(axis=0)
    need = settings.folds + 1
    rare = [f"  {name}: {count} people" for name, count in zip(photos.scheme.class_names(), people_with, strict=True) if 0 < count < need]
    if rare:
        raise DataError(
            f"{len(rare)} classes have fewer people than the {settings.folds} folds and the hold-out need ({need}):\n"
            + "\n".join(rare)
            + "\nAdd photos of such people, take fewer folds (--set data/folds=2), or choose other cuts (--set data/cuts=[30,50])."
        )
