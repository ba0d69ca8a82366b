"""The one door through which images are read, however they lie on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.labels import Scheme
from trainables.data.layouts import class_folders, contest, table
from trainables.data.layouts.layout import Layout
from trainables.data.photos import DataError, Photos, Unlabelled, some
from trainables.data.settings import DataConfig

LAYOUTS = (contest.LAYOUT, table.LAYOUT, class_folders.LAYOUT)  # the first that fits is taken


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
    return contest.read_unlabelled(source)


def _layout(source: Path) -> Layout:
    for layout in LAYOUTS:
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
