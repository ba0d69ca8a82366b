"""Tables that people write about single photos: corrections of their labels, and how much likelier each is shown.

A photo is named by its id, with or without suffix, or as `person/stem`; a person by its name, or by what stands before the first "_" in it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from trainables.data.layouts.reading import LAYOUTS
from trainables.data.photos import DataError, LeftOut, Photos
from trainables.data.rows import read_number, read_rows, refuse
from trainables.registry import ConfigError, Mistake, nearest

NONE = "none"


@dataclass(frozen=True)
class Corrected:
    """Labels (n, attributes) with a table's corrections, and what of the table did not fit the photos."""

    labels: np.ndarray
    left_out: tuple[LeftOut, ...] = ()


def check_relabel(relabel: str, lists: Collection[str]) -> None:
    """Raises: ConfigError for what is neither a file nor among the lists of corrections that come with the data."""
    known = [NONE, *lists]
    if relabel not in known and not Path(relabel).is_file():
        of_others = [layout.name for layout in LAYOUTS if relabel in layout.corrections]
        why = f"comes with {of_others[0]}, which this data is not" if of_others else "is no list of corrections and no file"
        fix = f"write {', '.join(known)}, or the path of a table with the columns photo, attribute and value"
        raise ConfigError([Mistake("labels/relabel", f"{relabel!r} {why}{nearest(relabel, known)}; {fix}")])


def correct(relabel: str, photos: Photos, lists: Mapping[str, Path]) -> Corrected:
    """The labels with the corrections of one of the lists that come with the data, or of a table `photo,attribute,value[,was]`.

    A row changes every photo that it names, but where `was` is given only those with that value. Rows of a list that do not fit
    these photos are left out; so are those of other tables that name photos which are not there.
    Raises: DataError naming every wrong row, and when no row of a table fits; ConfigError for a list that is not there.
    """
    if relabel == NONE:
        return Corrected(photos.labels)
    check_relabel(relabel, lists)
    file, shipped = lists.get(relabel, Path(relabel)), relabel in lists
    rows = read_rows(file, ("photo", "attribute", "value"))
    named = named_photos(photos)
    labels, line_of = photos.labels.copy(), {}
    mistakes, misfits = [], []
    for line, row in rows:
        wrong = _mistakes(row, photos)
        if wrong and not shipped:
            mistakes += [f"{file}:{line}: {words}" for words in wrong]
        if wrong:
            misfits.append(row["photo"])
            continue
        column = photos.scheme.names.index(row["attribute"])
        values = photos.scheme.attributes[column].values
        was, value = row.get("was"), values.index(row["value"])
        chosen = [index for index in named.get(row["photo"], ()) if not was or values[photos.labels[index, column]] == was]
        if not chosen:
            misfits.append(row["photo"])
        for index in chosen:
            before = line_of.setdefault((index, column), line)
            if before != line and labels[index, column] != value:
                mistakes.append(f"{file}:{line}: {photos.ids[index]} has another {row['attribute']} in line {before}; keep one row.")
            labels[index, column] = value
    refuse(file, mistakes)
    if len(misfits) == len(rows) and not shipped:
        raise DataError(f"{file}: no row fits these photos. Name a photo as {photos.ids[0]}, or a person, and leave was empty or as it is.")
    words = f"corrections of {relabel} that do not fit these photos, ignored"
    return Corrected(labels, (LeftOut(words, tuple(misfits)),) if misfits else ())


def read_weights(file: Path, photos: Photos, train: np.ndarray) -> tuple[np.ndarray, tuple[LeftOut, ...]]:
    """The weights (n,) that a table `photo,weight` gives the photos, 1 where it names none, and what of it did not fit.

    Args:
        train: indices of the training photos, of which some must weigh more than 0.
    Raises: DataError naming every wrong row.
    """
    named, weights, line_of = named_photos(photos), np.ones(len(photos)), {}
    mistakes, unknown = [], []
    for line, row in read_rows(file, ("photo", "weight")):
        weight = read_number(row["weight"])
        if weight is None or weight < 0:
            mistakes.append(f"{file}:{line}: weight is {row['weight']!r}; write a number from 0 on.")
            continue
        if row["photo"] not in named:
            unknown.append(row["photo"])
        for index in named.get(row["photo"], ()):
            if (before := line_of.setdefault(index, line)) != line:
                mistakes.append(f"{file}:{line}: {photos.ids[index]} is weighed in line {before} already; keep one row.")
            weights[index] = weight
    if not mistakes and not weights[train].any():
        mistakes.append(f"{file}: every training photo weighs 0, and none could be shown. Give some a weight above 0.")
    refuse(file, mistakes)
    words = "photos of data/weights that are not in the data, ignored"
    return weights, (LeftOut(words, tuple(unknown)),) if unknown else ()


def named_photos(photos: Photos) -> dict[str, list[int]]:
    """Indices of the photos by everything that a table may call them or their person."""
    by_photo, by_person = defaultdict(list), defaultdict(list)
    short = Counter(name.split("_")[0] for name in set(photos.names))
    for index, name in enumerate(photos.ids):
        stem = PurePosixPath(name).stem
        whole = photos.names[index] if photos.names else ""
        # What two people's names begin with names neither.
        people = {whole} | {first for first in [whole.split("_")[0]] if short[first] == 1} if whole else set()
        for word in people:
            by_person[word].append(index)
        for word in {name, str(PurePosixPath(name).with_suffix("")), *(f"{word}/{stem}" for word in people)}:
            by_photo[word].append(index)
    return {**by_person, **by_photo}


def _mistakes(row: dict[str, str], photos: Photos) -> list[str]:
    attributes = {attribute.name: attribute.values for attribute in photos.scheme.attributes}
    name = row["attribute"]
    if name not in attributes:
        return [f"attribute is {name!r}; write one of {', '.join(attributes)}."]
    given = {field: row[field] for field in ("value", "was") if row.get(field) or field == "value"}
    return [
        f"{field} is {value!r}; write one of {', '.join(attributes[name])}."
        for field, value in given.items()
        if value not in attributes[name]
    ]
