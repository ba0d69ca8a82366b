"""What a run is trained on beside its own photos: further labelled ones, those that an ensemble labelled, corrections and weights.

`extra.csv` names all of it but the corrections, with the hashes of its content, so that a run goes on with the same or not at all.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainables.data.corrections import NONE, correct, read_weights
from trainables.data.labels import Scheme
from trainables.data.layouts.reading import find_layout, read_photos, read_unlabelled
from trainables.data.names import some
from trainables.data.photos import DataError, LeftOut, Photos
from trainables.data.rows import read_number, read_rows, refuse
from trainables.data.settings import DataConfig
from trainables.data.training import Data, Extra
from trainables.data.views import ViewFiles

COLUMNS = ("source", "photo", "class", "sha256")
IMAGE = "ImageID"  # of probabilities.csv, as the ensemble writes it
ROUNDING = 0.01  # by which probabilities of a photo may miss 1

Decode = Callable[[Photos], tuple[Photos, ViewFiles]]


@dataclass(frozen=True)
class Found:
    """Extra photos and where they were found."""

    source: str  # as the settings name it
    extra: Extra
    files: ViewFiles


@dataclass(frozen=True)
class Completed:
    """The data of a run with all that its settings add to the photos."""

    data: Data
    found: tuple[Found, ...]
    table: bytes  # extra.csv; empty where nothing is added
    left_out: tuple[LeftOut, ...]


def complete(
    data: Data, source: Path, settings: DataConfig, relabels: Iterable[str], digests: Mapping[str, str], decode: Decode
) -> Completed:
    """Add extra photos, weights, and the labels under each of the corrections to the photos of a run.

    Args:
        source: where the photos lie, to find those that data/pseudo labels.
        relabels: every value that labels/relabel can have.
        digests: of every photo's content.
        decode: makes view files of photos, and leaves out those that cannot be decoded.
    Raises: DataError naming everything that is wrong with one of the sources.
    """
    found = [_read_labelled(name, settings, data.photos.scheme, decode) for name in settings.extra]
    if settings.pseudo:
        found.append(_read_pseudo(settings.pseudo, source, data.photos.scheme, decode))
    refuse_leaks(data, digests, found)
    corrected = {relabel: correct(relabel, data.photos, find_layout(source).corrections) for relabel in relabels if relabel != NONE}
    left_out = [item for one in (*(one.extra.photos for one in found), *corrected.values()) for item in one.left_out]
    weights = None
    if settings.weights:
        weights, unknown = read_weights(Path(settings.weights), data.photos, data.split.train)
        left_out += unknown
    whole = replace(
        data,
        extra=tuple(one.extra for one in found),
        relabelled={relabel: one.labels for relabel, one in corrected.items()},
        weights=weights,
    )
    return Completed(whole, tuple(found), extra_table(found, settings.weights), tuple(left_out))


def extra_table(found: Sequence[Found], weights: str = "") -> bytes:
    """The extra photos, and the table of weights, as a CSV table: source, photo, class, sha256. Empty where there are none.

    The class of a photo with probabilities is the word soft with a hash of them.
    """
    rows = []
    for one in found:
        photos, soft = one.extra.photos, one.extra.soft
        names = photos.scheme.class_names()
        for index, (name, label) in enumerate(zip(photos.ids, photos.scheme.joint(photos.labels).tolist(), strict=True)):
            taught = names[label] if soft is None else f"soft {hashlib.sha256(soft[index].tobytes()).hexdigest()[:16]}"
            rows.append((one.source, name, taught, one.files.digests[name]))
    if weights:
        rows.append((weights, "", "weights", hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]))
    text = io.StringIO()
    if rows:
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue().encode()


def refuse_other_extra(then: bytes, now: bytes) -> None:
    """Raises: DataError naming what differs between the extra photos of a run, as its extra.csv has them, and those of today."""
    was, is_now = (set(content.decode(errors="replace").splitlines()) for content in (then, now))
    if was != is_now:
        kinds = {"only then": sorted(was - is_now), "only now": sorted(is_now - was)}
        lines = [f"  {words}, {len(rows)}: {some(rows)}" for words, rows in kinds.items() if rows]
        lead = "What trains beside the photos (data/extra, data/pseudo, data/weights) is not what the run began with:"
        raise DataError("\n".join([lead, *lines, "Put the old files back to go on with the run, or start a new one."]))


def _read_labelled(name: str, settings: DataConfig, scheme: Scheme, decode: Decode) -> Found:
    try:
        photos, files = decode(read_photos(Path(name), settings, scheme))
    except DataError as error:
        raise DataError(f"data/extra: {error}") from None
    return Found(name, Extra(photos, files.files), files)


def _read_pseudo(name: str, source: Path, scheme: Scheme, decode: Decode) -> Found:
    unlabelled = read_unlabelled(source)
    if unlabelled is None:
        raise DataError(f"data/pseudo: {source} has no eval/info.csv, whose photos {name} would label. Leave data/pseudo out.")
    soft_of = _read_probabilities(Path(name), unlabelled.ids, scheme)
    # All of them are decoded, in their order: the ensemble has done so already, and left them in the cache.
    everything = np.arange(len(unlabelled.ids))
    nothing = np.zeros((len(everything), len(scheme.names)), dtype=int)
    photos, files = decode(Photos(unlabelled.root, unlabelled.ids, everything, nothing, scheme))
    photos = photos.take(np.flatnonzero([name in soft_of for name in photos.ids]))
    soft = np.array([soft_of[name] for name in photos.ids], dtype=np.float32).reshape(len(photos), scheme.classes)
    photos = replace(photos, labels=scheme.split(soft.argmax(axis=1)))
    return Found(name, Extra(photos, files.files, soft), files)


def _read_probabilities(file: Path, ids: Sequence[str], scheme: Scheme) -> dict[str, np.ndarray]:
    """Probabilities (classes,) by the photo's id."""
    classes, known, found, mistakes = scheme.class_names(), set(ids), {}, []
    rows = read_rows(file, (IMAGE,))
    columns = list(rows[0][1]) if rows else [IMAGE]
    if set(columns) != {IMAGE, *classes}:
        lacks = some([name for name in classes if name not in columns]) or "none"
        others = some([name for name in columns if name not in (IMAGE, *classes)]) or "none"
        raise DataError(
            f"{file}: its columns are not {IMAGE} and the classes of these photos. It lacks: {lacks}. It has beside them: {others}. "
            "Take the probabilities.csv of an ensemble over all attributes, with the same data/cuts."
        )
    for line, row in rows:
        numbers = [read_number(row[name]) for name in classes]
        if row[IMAGE] not in known:
            mistakes.append(f"{file}:{line}: photo {row[IMAGE]!r} is not in eval/info.csv; take the row out.")
        elif row[IMAGE] in found:
            mistakes.append(f"{file}:{line}: photo {row[IMAGE]} stands twice; keep one row.")
        elif None in numbers or min(numbers) < 0 or abs(sum(numbers) - 1) > ROUNDING:
            mistakes.append(f"{file}:{line}: these are no probabilities, each from 0 on and 1 in all.")
        else:
            found[row[IMAGE]] = np.array(numbers) / sum(numbers)
    refuse(file, mistakes)
    return found


def refuse_leaks(data: Data, digests: Mapping[str, str], found: Sequence[Found]) -> None:
    """Raises: DataError where somebody who judges, on validation or in the hold-out, would train."""
    photos = data.photos
    judging = np.concatenate([data.split.valid, data.split.holdout]).tolist()
    people = {photos.names[person] for person in photos.people[judging]} if photos.names else set()
    of_digest = {digests[photos.ids[index]]: photos.ids[index] for index in judging}
    mistakes = []
    for one in found:
        extra = one.extra.photos
        known = sorted(people & {extra.names[person] for person in extra.people}) if extra.names else []
        copies = [f"{name} (is {of_digest[one.files.digests[name]]})" for name in extra.ids if one.files.digests[name] in of_digest]
        if known:
            mend = "Take them out of it, or, if they are others of the same name, name them otherwise"
            mistakes.append(f"{one.source}: {len(known)} people of validation or hold-out would train: {some(known)}. {mend}.")
        elif copies:
            mistakes.append(
                f"{one.source}: {len(copies)} photos of validation or hold-out would train: {some(copies)}. Take them out of it."
            )
    if mistakes:
        raise DataError("\n".join(mistakes))
