"""Labelled photos, and the one door through which they are read, however they lie on disk.

What cannot be used is counted and named in `left_out`; nothing is guessed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainables.config import DataConfig
from trainables.data.labels import Scheme


class DataError(ValueError):
    """Data that cannot be used; the text names every reason found and how to mend it."""


@dataclass(frozen=True)
class LeftOut:
    """One kind of thing that was not used, and its names."""

    reason: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.names)} {self.reason}: {some(self.names)}"


@dataclass(frozen=True)
class Photos:
    """Labelled photos; arrays are parallel, one entry a photo."""

    root: Path  # ids are paths below this folder
    ids: tuple[str, ...]
    rows: np.ndarray  # (n,) the photo's row in every view file of this data set
    people: np.ndarray  # (n,) index of the person: the group that no split parts
    labels: np.ndarray  # (n, attributes) class ids in the scheme's order
    scheme: Scheme
    left_out: tuple[LeftOut, ...] = ()
    numbers: np.ndarray | None = None  # (n,) float32: what the scheme's ordinal attribute is cut from
    names: tuple[str, ...] = ()  # of the people, by index, where they have any; two data sets that name one alike mean the same person

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, bad: dict[str, str]) -> "Photos":
        """The photos but those in `bad` (id -> why), which join `left_out`."""
        if not bad:
            return self
        found = LeftOut("photos cannot be decoded", tuple(f"{name} ({why})" for name, why in bad.items()))
        kept = self.take(np.flatnonzero([name not in bad for name in self.ids]))
        return replace(kept, left_out=(*self.left_out, found))

    def take(self, positions: np.ndarray) -> "Photos":
        """The photos at these positions, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[position] for position in positions.tolist()),
            rows=self.rows[positions],
            people=self.people[positions],
            labels=self.labels[positions],
            numbers=None if self.numbers is None else self.numbers[positions],
        )


@dataclass(frozen=True)
class Unlabelled:
    """Photos to predict, in the order in which the answer must be written."""

    root: Path
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """One way in which photos and their labels lie on disk."""

    fits: Callable[[Path], bool]
    scheme: Callable[[Path, DataConfig], Scheme]  # without looking for every photo
    read: Callable[[Path, DataConfig], Photos]
    oddities: Callable[[Path, Photos], list[str]] = lambda source, photos: []  # what makes labels that cannot be meant, with the mend


def read_photos(source: Path, settings: DataConfig, scheme: Scheme | None = None) -> Photos:
    """The labelled photos of a folder or table, in whichever of the three layouts it is.

    Args:
        scheme: of photos that these are to join; their labels are then numbered by it.
    Raises: DataError naming everything that is wrong with the source.
    """
    layout = _layout(source)
    photos = layout.read(source, settings)
    if scheme is not None:
        return _renumbered(source, photos, scheme)
    if oddities := layout.oddities(source, photos):
        raise DataError("\n".join(oddities))
    return photos


def read_scheme(source: Path, settings: DataConfig) -> Scheme:
    """The labels of a folder or table, found without opening a photo. Raises: DataError."""
    return _layout(source).scheme(source, settings)


def read_unlabelled(source: Path) -> Unlabelled | None:
    """The photos of `source/eval` in info.csv's order, or None where the data has none. Raises: DataError."""
    from trainables.data import contest

    return contest.read_unlabelled(source)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _layout(source: Path) -> Layout:
    # Imported here: the layouts are made of what this module defines.
    from trainables.data import contest, table, tree

    for layout in (contest.LAYOUT, table.LAYOUT, tree.LAYOUT):
        if layout.fits(source):
            return layout
    if not source.exists():
        why = "no such folder"
    elif source.is_file():
        why = "no table, whose name would end in .csv"
    else:
        why = "no train/train.csv in it, and no folders with photos"
    raise DataError(
        f"{source}: {why}. Give --data the folder that holds train/train.csv and train/images/, a table such as photos.csv with a column "
        "image, or a folder that holds one folder of photos for each class."
    )


def _renumbered(source: Path, photos: Photos, scheme: Scheme) -> Photos:
    """The photos with labels of a scheme that has all their values. Raises: DataError."""
    mistakes, columns = [], []
    for attribute in scheme.attributes:
        if attribute.name not in photos.scheme.names:
            mistakes.append(f"{source}: has no attribute {attribute.name}; there are {', '.join(photos.scheme.names)}. Add it.")
            continue
        column = photos.scheme.names.index(attribute.name)
        values, own = photos.scheme.attributes[column].values, photos.labels[:, column]
        strange = [values[value] for value in np.unique(own) if values[value] not in attribute.values]
        if strange:
            known = ", ".join(attribute.values)
            mistakes.append(f"{source}: {attribute.name} is {some(strange)} for some photos, and the classes are {known}. Write those.")
        columns.append(np.array([attribute.values.index(value) if value in attribute.values else -1 for value in values])[own])
    if mistakes:
        raise DataError("\n".join(mistakes))
    ordinal = [attribute for attribute in scheme.attributes if attribute.cuts]
    numbers = photos.numbers if any(attribute in ordinal for attribute in photos.scheme.attributes) else None
    return replace(photos, labels=np.stack(columns, axis=-1), scheme=scheme, numbers=numbers)
