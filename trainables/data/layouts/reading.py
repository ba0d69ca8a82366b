"""The one door through which images are read, however they lie on disk."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.images import DataError, Images, Unlabelled
from trainables.data.layouts import class_folders, contest, table
from trainables.data.layouts.layout import Layout
from trainables.data.names import look_alikes, no_text, shown, some, with_control_characters
from trainables.data.rows import refuse
from trainables.data.settings import DataConfig
from trainables.data.targets import Scheme

LAYOUTS = (contest.LAYOUT, table.LAYOUT, class_folders.LAYOUT)  # the first that fits is taken


def read_images(source: Path, settings: DataConfig) -> Images:
    """The labelled images of a folder or table, in whichever of the three layouts it is.

    Raises: DataError naming everything that is wrong with the source.
    """
    layout = find_layout(source)
    images = layout.read(source, settings)
    refuse(source, [*_text_mistakes(source, images.ids), *layout.oddities(source, images)])
    return images


def read_joining(source: Path, settings: DataConfig, scheme: Scheme, needed: Collection[str]) -> Images:
    """Labelled images that are to join others, with labels of the part of their scheme that these have.

    Args:
        scheme: of the others; all that is needed and all else that is there, with values that it knows, is numbered by it.
        needed: attributes that the images must have.
    Raises: DataError naming everything that is wrong with the source.
    """
    layout = find_layout(source)
    settings = settings.model_copy(update={"cuts": scheme.cut.cuts if scheme.cut else settings.cuts})
    if settings.ordinal not in needed:
        plain = settings.model_copy(update={"ordinal": ""})
        settings = settings if settings.ordinal in layout.scheme(source, plain).names else plain
    images = layout.read(source, settings)
    refuse(source, _text_mistakes(source, images.ids))
    return _renumbered(source, images, scheme, needed)


def read_scheme(source: Path, settings: DataConfig) -> Scheme:
    """The labels of a folder or table, found without opening an image. Raises: DataError."""
    return find_layout(source).scheme(source, settings)


def read_unlabelled(source: Path) -> Unlabelled | None:
    """The images of `source/eval` in info.csv's order, or None where the data has none. Raises: DataError."""
    unlabelled = contest.read_unlabelled(source)
    if unlabelled:
        refuse(source, _text_mistakes(source, unlabelled.ids))
    return unlabelled


def refuse_odd_names(source: Path, images: Images) -> None:
    """Refuse names that a new run should not begin with; one that there is goes on with them.

    Raises: DataError for control characters in names, for names that look alike, and for joint classes of one name.
    """
    classes = {f"classes of {attribute.name}": attribute.values for attribute in images.scheme.targets}
    groups = {"groups": tuple(dict.fromkeys(images.names))}
    mistakes = []
    for kind, names in ({"files": images.ids, "targets": images.scheme.names} | groups | classes).items():
        if odd := with_control_characters(names):
            fix = "Rename them without line breaks, tabs and the like"
            mistakes.append(f"{source}: {len(odd)} names of {shown(kind)} hold control characters: {some(odd)}. {fix}.")
    for kind, names in (groups | classes).items():
        for alike in look_alikes(names):
            spelt = ", ".join(map(ascii, alike))
            mistakes.append(f"{source}: {shown(kind)}: these look alike and are not: {spelt}. Write one of them for all.")
    if not mistakes and any(", " in value for values in classes.values() for value in values):
        twice = [name for name, count in Counter(images.scheme.class_names()).items() if count > 1]
        mistakes += [f"{source}: two joint classes would both be called {name!r}. Write classes without a comma." for name in twice]
    refuse(source, mistakes)


def find_layout(source: Path) -> Layout:
    """The first layout that a folder or table is in. Raises: DataError."""
    if no_text([str(source.absolute())]):
        raise DataError(f"{shown(str(source.absolute()))}: this name is not in UTF-8. Rename it, or the folder that holds it.")
    for layout in LAYOUTS:
        if layout.fits(source):
            return layout
    if not source.exists():
        why = "no such folder"
    elif source.is_file():
        why = "no table, whose name would end in .csv"
    else:
        why = "no train/train.csv in it, and no folders with images"
    raise DataError(
        f"{source}: {why}. Give --data the folder that holds train/train.csv and train/images/, a table such as photos.csv with a column "
        "image, or a folder that holds one folder of images for each class."
    )


def _text_mistakes(source: Path, ids: Sequence[str]) -> list[str]:
    fix = "Rename them in UTF-8; convmv -f latin1 -t utf-8 -r --notest FOLDER does it for all files below a folder"
    return [f"{source}: {len(names)} names of files are not in UTF-8: {some(names)}. {fix}."] if (names := no_text(ids)) else []


def _renumbered(source: Path, images: Images, scheme: Scheme, needed: Collection[str]) -> Images:
    mistakes, attributes, columns = [], [], []
    for attribute in scheme.targets:
        if attribute.name not in images.scheme.names:
            if attribute.name in needed:
                mistakes.append(f"{source}: has no attribute {attribute.name}; there are {', '.join(images.scheme.names)}. Add it.")
            continue
        column = images.scheme.names.index(attribute.name)
        values, own = images.scheme.targets[column].values, images.labels[:, column]
        strange = [values[value] for value in np.unique(own) if values[value] not in attribute.values]
        if strange:
            if attribute.name in needed:
                known = ", ".join(attribute.values)
                words = f"{attribute.name} is {some(strange)} for some images, and the classes are {known}. Write those."
                mistakes.append(f"{source}: {words}")
            continue
        attributes.append(attribute)
        columns.append(np.array([attribute.values.index(value) if value in attribute.values else -1 for value in values])[own])
    refuse(source, mistakes)
    part = Scheme(tuple(attributes))
    numbers = images.numbers if part.cut and part.cut in images.scheme.targets else None
    return replace(images, labels=np.stack(columns, axis=-1), scheme=part, numbers=numbers)
