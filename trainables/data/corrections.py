"""Tables that people write about single images: corrections of their labels, and with which weight each is shown.

An image is named by its id, with or without suffix, or as `person/stem`; a group by its name, or by what stands before the first "_" in it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from trainables.data.choices import as_choices
from trainables.data.images import DataError, Images, LeftOut
from trainables.data.layouts.reading import LAYOUTS
from trainables.data.rows import read_number, read_rows, refuse
from trainables.registry import ConfigError, Mistake, nearest

NONE = "none"


@dataclass(frozen=True)
class Corrected:
    """Labels (n, Classes + tags), as `as_choices` has them, with a table's corrections, and what of the table did not fit the images."""

    labels: np.ndarray
    left_out: tuple[LeftOut, ...] = ()


def check_relabel(relabel: str, lists: Collection[str]) -> None:
    """Raises: ConfigError for what is neither a file nor among the lists of corrections that come with the data."""
    known = [NONE, *lists]
    if relabel not in known and not Path(relabel).is_file():
        of_others = [layout.title for layout in LAYOUTS.values() if relabel in layout.corrections]
        why = (
            f"comes with {of_others[0]}, which is not the layout of this data"
            if of_others
            else "is neither a list of corrections nor a file"
        )
        fix = f"write {', '.join(known)}, or the path of a table with the columns photo, attribute and value"
        raise ConfigError([Mistake("labels/relabel", f"{relabel!r} {why}{nearest(relabel, known)}; {fix}")])


def correct(relabel: str, images: Images, lists: Mapping[str, Path]) -> Corrected:
    """The labels with the corrections of one of the lists that come with the data, or of a table `photo,attribute,value[,was]`.

    Of a tag the attribute is its name, and the value that name or `no` and the name, such as `no sea`.
    A row changes every image that it names, but where `was` is given only those with that value. Rows of a list that do not fit
    these images are left out; so are those of other tables that name images which are not there.
    Raises: DataError naming every wrong row, and when no row of a table fits; ConfigError for a list that is not there.
    """
    images = as_choices(images)
    if relabel == NONE:
        return Corrected(images.labels)
    check_relabel(relabel, lists)
    file, shipped = lists.get(relabel, Path(relabel)), relabel in lists
    rows = read_rows(file, ("photo", "attribute", "value"))
    named, classes = named_images(images), images.scheme.of_kind("classes")
    labels, line_of = images.labels.copy(), {}
    mistakes, misfits = [], []
    for line, row in rows:
        wrong = _mistakes(row, images)
        if wrong and not shipped:
            mistakes += [f"{file}:{line}: {words}" for words in wrong]
        if wrong:
            misfits.append(row["photo"])
            continue
        column = classes.names.index(row["attribute"])
        values = classes.targets[column].values
        was, value = row.get("was"), values.index(row["value"])
        chosen = [index for index in named.get(row["photo"], ()) if not was or values[images.labels[index, column]] == was]
        if not chosen:
            misfits.append(row["photo"])
        for index in chosen:
            before = line_of.setdefault((index, column), line)
            if before != line and labels[index, column] != value:
                mistakes.append(f"{file}:{line}: {images.ids[index]} has another {row['attribute']} in line {before}; keep one row.")
            labels[index, column] = value
    refuse(file, mistakes)
    if len(misfits) == len(rows) and not shipped:
        raise DataError(f"{file}: no row fits these images. Name an image as {images.ids[0]}, or a group, and leave was empty or as it is.")
    words = f"corrections of {relabel} that do not fit these images, ignored"
    return Corrected(labels, (LeftOut(words, tuple(misfits)),) if misfits else ())


def read_weights(file: Path, images: Images, train: np.ndarray) -> tuple[np.ndarray, tuple[LeftOut, ...]]:
    """The weights (n,) that a table `photo,weight` gives the images, 1 where it names none, and what of it did not fit.

    Args:
        train: indices of the training images, of which some must weigh more than 0.
    Raises: DataError naming every wrong row.
    """
    named, weights, line_of = named_images(images), np.ones(len(images)), {}
    mistakes, unknown = [], []
    for line, row in read_rows(file, ("photo", "weight")):
        weight = read_number(row["weight"])
        if weight is None or weight < 0:
            mistakes.append(f"{file}:{line}: weight is {row['weight']!r}; write a number >= 0.")
            continue
        if row["photo"] not in named:
            unknown.append(row["photo"])
        for index in named.get(row["photo"], ()):
            if (before := line_of.setdefault(index, line)) != line:
                mistakes.append(f"{file}:{line}: {images.ids[index]} has a weight in line {before} already; keep one row.")
            weights[index] = weight
    if not mistakes and not weights[train].any():
        mistakes.append(f"{file}: all training images have weight 0. Give some of them a weight above 0.")
    refuse(file, mistakes)
    words = "images of data/weights that are not in the data, ignored"
    return weights, (LeftOut(words, tuple(unknown)),) if unknown else ()


def named_images(images: Images) -> dict[str, list[int]]:
    """Indices of the images by everything that a table may call them or their group."""
    by_image, by_group = defaultdict(list), defaultdict(list)
    short = Counter(name.split("_")[0] for name in set(images.names))
    for index, name in enumerate(images.ids):
        stem = PurePosixPath(name).stem
        whole = images.names[index] if images.names else ""
        # A beginning that the names of two groups share names neither.
        groups = {whole} | {first for first in [whole.split("_")[0]] if short[first] == 1} if whole else set()
        for word in groups:
            by_group[word].append(index)
        for word in {name, str(PurePosixPath(name).with_suffix("")), *(f"{word}/{stem}" for word in groups)}:
            by_image[word].append(index)
    return {**by_group, **by_image}


def _mistakes(row: dict[str, str], images: Images) -> list[str]:
    attributes = {target.name: target.values for target in images.scheme.of_kind("classes").targets}
    name = row["attribute"]
    if name not in attributes:
        return [f"attribute is {name!r}; write one of {', '.join(attributes)}."]
    given = {field: row[field] for field in ("value", "was") if row.get(field) or field == "value"}
    return [
        f"{field} is {value!r}; write one of {', '.join(attributes[name])}."
        for field, value in given.items()
        if value not in attributes[name]
    ]
