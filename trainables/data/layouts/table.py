"""A table of images: a column `image` with paths below the table's folder, perhaps one that says who is on it, and the attributes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.images import Images, LeftOut
from trainables.data.layouts.layout import Layout
from trainables.data.rows import Rows, Table, is_inside, read_number, read_table, refuse
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes, Scheme

IMAGE, PERSON = "image", "person"
MOST_VALUES = 50  # of a column beside others; more are hardly classes


def read_listed(file: Path, settings: DataConfig) -> Images:
    """The images of the table, in its order; classes are numbered in the order of their names, those of numbers in that of their bands.

    Raises: DataError naming everything that is wrong with the table.
    """
    table = read_table(file, (IMAGE,))
    rows, columns = table.rows, table.columns
    group = settings.group or (PERSON if PERSON in columns else "")
    attributes = [name for name in columns if name not in (IMAGE, group)]
    refuse(file, [*_column_mistakes(file, table, attributes, settings), *_row_mistakes(file, rows, group, attributes, settings)])

    ids = tuple(row[IMAGE] for _, row in rows)
    scheme, labels, numbers = [], [], None
    for name in attributes:
        fields = [row[name] for _, row in rows]
        if name == settings.ordinal:
            numbers = np.array(fields, dtype=np.float32)
            scheme.append(Classes.banded(name, settings.cuts))
            labels.append(np.digitize(numbers, settings.cuts))
        else:
            values, ids_of_values = np.unique(fields, return_inverse=True)
            scheme.append(Classes(name, tuple(values.tolist())))
            labels.append(ids_of_values)
    names = tuple(row[group] for _, row in rows) if group else ()
    groups = np.unique(names, return_inverse=True)[1] if group else np.arange(len(ids))
    left_out = (
        LeftOut("columns without a name, ignored", table.nameless),
        LeftOut(
            "images, each taken for a group of its own; a column person, or data/group, would say who is on them", () if group else ids
        ),
    )
    return Images(
        root=file.parent,
        ids=ids,
        groups=groups,
        labels=np.stack(labels, axis=-1),
        scheme=Scheme(tuple(scheme)),
        left_out=tuple(item for item in left_out if item.names),
        numbers=numbers,
        names=names,
    )


def _column_mistakes(file: Path, table: Table, attributes: Sequence[str], settings: DataConfig) -> list[str]:
    columns = table.columns
    if not table.rows:
        return [f"{file}: no row below the header. Write one for each image."]
    mistakes = [
        f"{file}: data/{field} is {name}, and there is no such column; there are {', '.join(columns)}."
        for field, name in (("group", settings.group), ("ordinal", settings.ordinal))
        if name and name not in columns
    ]
    if not attributes:
        lost = f" What is in {', '.join(table.nameless)} is ignored, for want of a name." if table.nameless else ""
        mistakes.append(f"{file}: no column says what is on the images. Add one for each target to predict.{lost}")
    elif settings.ordinal in columns and settings.ordinal not in attributes:
        mistakes.append(f"{file}: data/ordinal is {settings.ordinal}, which is no attribute. Name a column of numbers.")
    elif settings.ordinal in columns and not settings.cuts:
        known = [number for _, row in table.rows if (number := read_number(row[settings.ordinal])) is not None]
        thirds = sorted({max(1, round(number)) for number in np.quantile(known, [1 / 3, 2 / 3])}) if known else [10, 20]
        mistakes.append(
            f"{file}: data/ordinal is {settings.ordinal}, and nothing says where to cut it into classes. Give the first number of each "
            f"class but the lowest, such as --set data/cuts={thirds}."
        )
    return mistakes


def _row_mistakes(file: Path, rows: Rows, group: str, attributes: Sequence[str], settings: DataConfig) -> list[str]:
    mistakes, line_of = [], {}
    for line, row in rows:
        image = row[IMAGE]
        if not is_inside(image):
            mistakes.append(f"{file}:{line}: image {image!r} is not the plain path of a file below {file.parent}; write one, without dots.")
        elif image in line_of:
            mistakes.append(f"{file}:{line}: image {image} is in line {line_of[image]} already; keep one row.")
        elif not (file.parent / image).is_file():
            mistakes.append(f"{file}:{line}: image {image} is not in {file.parent}. Put it there or take the row out.")
        line_of.setdefault(image, line)
        for name in (group, *attributes):
            if name not in row:
                continue
            if name == settings.ordinal != group and read_number(row[name]) is None:
                mistakes.append(f"{file}:{line}: {name} is {row[name]!r}; write a number.")
            elif not row[name].strip():
                mistakes.append(f"{file}:{line}: {name} is empty; write it, or take the row out.")
    return mistakes


def _oddities(file: Path, images: Images) -> list[str]:
    """Everything that makes classes that nobody can have meant, one line each."""
    mistakes = []
    mend = "A number is cut into classes by --set data/ordinal={name} and data/cuts; what nobody is to predict is taken out"
    for attribute in images.scheme.targets:
        count = len(attribute.values)
        if attribute.cuts:
            continue
        if count == 1:
            mistakes.append(f"{file}: column {attribute.name} is {attribute.values[0]} for every image; take it out.")
        elif count == len(images):
            mistakes.append(f"{file}: column {attribute.name} has another value for every image. {mend.format(name=attribute.name)}.")
        elif count > MOST_VALUES and len(images.scheme.targets) > 1:
            mistakes.append(f"{file}: column {attribute.name} has {count} different values. {mend.format(name=attribute.name)}.")
    groups = len(np.unique(images.groups))
    if not mistakes and images.scheme.classes > groups:
        sizes = " x ".join(f"{size} of {name}" for name, size in zip(images.scheme.names, images.scheme.sizes, strict=True))
        mistakes.append(f"{file}: {images.scheme.classes} joint classes ({sizes}) are more than the {groups} groups. Take columns out.")
    return mistakes


LAYOUT = Layout(
    name="a table",
    fits=lambda source: source.suffix.lower() == ".csv" and source.is_file(),
    scheme=lambda file, settings: read_listed(file, settings).scheme,
    read=read_listed,
    oddities=_oddities,
)
