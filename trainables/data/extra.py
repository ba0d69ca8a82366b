"""What a run is trained on beside its own images: further labelled ones, those that an ensemble labelled, corrections and weights.

`extra.csv` names all of it but the corrections, with the hashes of its content, so that a run resumes with the same or not at all.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from trainables.data.choices import as_choices
from trainables.data.copies import fingerprints, first_alike
from trainables.data.corrections import NONE, Corrected, correct, read_weights
from trainables.data.images import DataError, Images, LeftOut
from trainables.data.layouts.reading import find_layout, read_folder, read_joining, read_unlabelled
from trainables.data.names import some
from trainables.data.rows import read_number, read_rows, refuse
from trainables.data.settings import DataConfig
from trainables.data.splits import ALWAYS, HOLDOUT
from trainables.data.targets import Scheme, read_task
from trainables.data.teacher import Teacher
from trainables.data.training import Data, Extra
from trainables.data.views import ViewFiles, open_view
from trainables.metrics.metric import TAGGED

COLUMNS = ("source", "photo", "class", "sha256")
IMAGE = "ImageID"  # of probabilities.csv, as the ensemble writes it
ROUNDING = 0.01  # by which probabilities of an image may miss 1

Decode = Callable[[Images], tuple[Images, ViewFiles]]


@dataclass(frozen=True)
class Found:
    """Extra images and where they were found."""

    source: str  # as the settings name it
    extra: Extra
    files: ViewFiles
    by_teacher: bool = False  # whether a teacher's file names the images


@dataclass(frozen=True)
class Completed:
    """The data of a run with all that its settings add to the images."""

    data: Data
    found: tuple[Found, ...]
    table: bytes  # extra.csv; empty where nothing is added
    left_out: tuple[LeftOut, ...]


def complete(
    data: Data,
    source: Path,
    settings: DataConfig,
    tasks: Iterable[str | list[list[str]]],
    relabels: Iterable[str],
    digests: Mapping[str, str],
    decode: Decode,
    teacher: Teacher | None = None,
) -> Completed:
    """Add extra images, weights, and the labels under each of the corrections to the images of a run.

    What is decided of the extra images holds for all folds: those whose group is held out are refused, and those whose group validates
    in some fold train in the others.

    Args:
        source: where the images lie, to find those that data/pseudo labels.
        tasks: every value that task can have; extra images need the labels of their targets alone.
        relabels: every value that labels/relabel can have.
        digests: of every image's content.
        decode: makes view files of images, and leaves out those that cannot be decoded.
        teacher: answers for the images, and for some without labels, which then train too. The table has none of them: the teacher's own
            file names them with their hashes.
    Raises: DataError naming everything that is wrong with one of the sources.
    """
    scheme = data.images.scheme
    needed = {name for task in tasks for name in scheme.about(read_task(task, scheme).scheme.names)}
    found = [_read_labelled(name, settings, scheme, needed, decode) for name in filter(None, settings.extra)]
    if settings.pseudo:
        refuse_seen(Path(settings.pseudo), data, digests)
        found.append(_read_pseudo(settings, source, scheme, decode))
    if teacher and teacher.unseen.ids:
        images, files = decode(teacher.unlabelled(scheme))
        found.append(Found(str(teacher.unseen.root), teacher.extra(images, files), files, by_teacher=True))
    found += [_read_unlabelled(name, scheme, decode) for name in filter(None, settings.unlabelled)]
    found = place(data, digests, found)
    wanted = [relabel for relabel in relabels if relabel != NONE]
    lists = find_layout(source, settings).corrections if wanted else {}
    corrected = {relabel: correct(relabel, data.images, lists) for relabel in wanted}
    left_out = [item for one in (*(one.extra.images for one in found), *corrected.values()) for item in one.left_out]
    left_out += [*_apart(found, data.split.fold), *_alike(data, digests, found), *_seen(data, corrected)]
    weights = None
    if settings.weights:
        weights, unknown = read_weights(Path(settings.weights), data.images, data.split.train)
        left_out += unknown
    whole = replace(
        data,
        extra=tuple(one.extra for one in found),
        relabelled={relabel: one.labels for relabel, one in corrected.items()},
        weights=weights,
        taught=teacher.of(data.images) if teacher else None,
    )
    listed = [one for one in found if not one.by_teacher]
    return Completed(whole, tuple(found), extra_table(listed, settings.weights), tuple(left_out))


def extra_table(found: Sequence[Found], weights: str = "") -> bytes:
    """The extra images, and the table of weights, as a CSV table: source, photo, class, sha256. Empty where there are none.

    The class of an image with probabilities is the word soft with a hash of them; that of an image without labels is empty.
    """
    rows = []
    for one in found:
        images, soft = one.extra.images, one.extra.soft
        for index, (name, label) in enumerate(zip(images.ids, images.described(), strict=True)):
            taught = label if soft is None else f"soft {hashlib.sha256(soft[index].tobytes()).hexdigest()[:16]}"
            taught = "" if one.extra.unlabelled else taught
            rows.append((one.source, name, taught, one.files.digests[name]))
    if weights:
        rows.append((weights, "", "weights", hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]))
    text = io.StringIO()
    if rows:
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue().encode()


def refuse_other_extra(then: bytes, now: bytes) -> None:
    """Raises: DataError naming what differs between the extra images of a run, as its extra.csv has them, and those of today."""
    was, is_now = (set(map(tuple, csv.reader(io.StringIO(content.decode(errors="replace"), newline="")))) for content in (then, now))
    if was != is_now:
        kinds = {"only then": list(map(",".join, sorted(was - is_now))), "only now": list(map(",".join, sorted(is_now - was)))}
        lines = [f"  {words}, {len(rows)}: {some(rows)}" for words, rows in kinds.items() if rows]
        lead = "The additional training data (data/extra, data/pseudo, data/weights, data/unlabelled) changed since the run began:"
        raise DataError("\n".join([lead, *lines, "Restore the old files to resume the run, or start a new one."]))


def refuse_seen(pseudo: Path, data: Data, digests: Mapping[str, str]) -> None:
    """Refuse soft labels by models that trained, or were chosen, on images that are held out here: they would carry their labels over.

    Known is it of the probabilities in an ensemble's folder, below a run's; what lies elsewhere is taken as it is.
    Raises: DataError naming the images.
    """
    table = pseudo.absolute().parent.parent / "split.csv"
    if not table.is_file():
        return
    used = {row["sha256"] for _, row in read_rows(table, ("photo", "part", "sha256")) if row["part"] != "holdout"}
    seen = [name for name in np.array(data.images.ids)[data.split.holdout].tolist() if digests[name] in used]
    if seen:
        fix = "Use an ensemble of runs with this split (the same data, seed and data/holdout), or remove data/pseudo"
        raise DataError(
            f"data/pseudo: the models behind {pseudo} have seen {len(seen)} images that are held out here: {some(seen)}. {fix}."
        )


def _seen(data: Data, corrected: Mapping[str, Corrected]) -> list[LeftOut]:
    """Corrections of held-out images: they change no score, but whoever made such a table has seen these."""
    held_out, found, before = data.split.holdout, [], as_choices(data.images).labels
    for relabel, one in corrected.items():
        changed = held_out[(one.labels[held_out] != before[held_out]).any(axis=1)]
        if len(changed):
            words = f"corrections in {relabel} are of held-out images, whose labels stay as they are; who wrote them has seen these"
            found.append(LeftOut(words, tuple(data.images.ids[row] for row in changed.tolist())))
    return found


def _read_labelled(name: str, settings: DataConfig, scheme: Scheme, needed: Collection[str], decode: Decode) -> Found:
    try:
        images, files = decode(read_joining(Path(name), settings, scheme, needed))
    except DataError as error:
        raise DataError(f"data/extra: {error}") from None
    return Found(name, Extra(images, files.files), files)


def _read_unlabelled(name: str, scheme: Scheme, decode: Decode) -> Found:
    try:
        ids = read_folder(Path(name))
    except DataError as error:
        raise DataError(f"data/unlabelled: {error}") from None
    images, files = decode(Images.without_labels(Path(name), ids, scheme))
    return Found(name, Extra(images, files.files, unlabelled=True), files)


def _read_pseudo(settings: DataConfig, source: Path, scheme: Scheme, decode: Decode) -> Found:
    name, unlabelled = settings.pseudo, read_unlabelled(source, settings)
    if unlabelled is None:
        raise DataError(f"data/pseudo: {source} has no unlabelled test part, whose images {name} would label. Remove data/pseudo.")
    if len(scheme.kinds) > 1 or scheme.kind == "number":
        words = "labels images by the probabilities of classes or of tags, and some of these targets are of another kind"
        raise DataError(f"data/pseudo: {name} {words}: {', '.join(scheme.names)}. Remove data/pseudo.")
    soft_of = _read_probabilities(Path(name), unlabelled.ids, scheme)
    # All of them are decoded, in their order: the ensemble has done so already, and left them in the cache.
    images, files = decode(Images.without_labels(unlabelled.root, unlabelled.ids, scheme))
    images = images.take(np.flatnonzero([name in soft_of for name in images.ids]))
    soft = np.array([soft_of[name] for name in images.ids], dtype=np.float32).reshape(len(images), scheme.classes)
    images = replace(images, tags=soft >= TAGGED) if scheme.kind == "tags" else replace(images, labels=scheme.split(soft.argmax(axis=1)))
    return Found(name, Extra(images, files.files, soft), files)


def _read_probabilities(file: Path, ids: Sequence[str], scheme: Scheme) -> dict[str, np.ndarray]:
    """Probabilities (classes,) by the image's id."""
    classes, known, found, mistakes = scheme.class_names(), set(ids), {}, []
    rows = read_rows(file, (IMAGE,))
    columns = list(rows[0][1]) if rows else [IMAGE]
    if set(columns) != {IMAGE, *classes}:
        lacks = some([name for name in classes if name not in columns]) or "none"
        others = some([name for name in columns if name not in (IMAGE, *classes)]) or "none"
        raise DataError(
            f"{file}: its columns are not {IMAGE} and the classes of these images. It lacks: {lacks}. It also has: {others}. "
            "Use the probabilities.csv of an ensemble over all targets, with the same data/cuts."
        )
    for line, row in rows:
        numbers = [number for name in classes if (number := read_number(row[name])) is not None]
        if row[IMAGE] not in known:
            mistakes.append(f"{file}:{line}: image {row[IMAGE]!r} is not in eval/info.csv; remove the row.")
        elif row[IMAGE] in found:
            mistakes.append(f"{file}:{line}: image {row[IMAGE]} is a duplicate; keep one row.")
        elif len(numbers) < len(classes) or not _are_probabilities(numbers, scheme):
            in_all = " between 0 and 1" if scheme.kind == "tags" else " >= 0 that sum to 1"
            mistakes.append(f"{file}:{line}: these are not probabilities; write numbers{in_all}.")
        else:
            found[row[IMAGE]] = np.array(numbers) / (1 if scheme.kind == "tags" else sum(numbers))
    refuse(file, mistakes)
    return found


def _are_probabilities(numbers: Sequence[float], scheme: Scheme) -> bool:
    return min(numbers) >= 0 and (max(numbers) <= 1 if scheme.kind == "tags" else abs(sum(numbers) - 1) <= ROUNDING)


def place(data: Data, digests: Mapping[str, str], found: Sequence[Found]) -> list[Found]:
    """The extra images with the folds in which they do not train.

    Raises: DataError naming those whose group, by its name or by an image of the same content, is held out.
    """
    placed, mistakes = [], []
    for one in found:
        parts = _parts(data, digests, one)
        held_out = one.extra.images.take(np.flatnonzero(parts[:, -1]))
        if len(held_out):
            fix = "Remove them from it, or, if they are others of the same name, rename them"
            what = some([_described(name, group) for name, group in zip(held_out.ids, held_out.names or repeat(""), strict=False)])
            mistakes.append(f"{one.source}: {len(held_out)} images of hold-out groups would train: {what}. {fix}.")
        placed.append(replace(one, extra=replace(one.extra, validates=parts[:, :-1])))
    if mistakes:
        raise DataError("\n".join(mistakes))
    return placed


def _parts(data: Data, digests: Mapping[str, str], one: Found) -> np.ndarray:
    """Whether the group of each extra image is in each fold, and, last, in the hold-out: (n, folds + 1)."""
    images, extra, part = data.images, one.extra.images, data.split.part.tolist()
    parts_of = defaultdict(set)
    # An image without a group is one by itself, which others may name.
    for name, group, side in zip(images.ids, images.names or images.ids, part, strict=True):
        parts_of["content", digests[name]].add(side)
        parts_of["group", group].add(side)
    _, group = np.unique(extra.groups, return_inverse=True)
    folds = max([0, *part]) + 1
    found = np.zeros((len(extra), folds + 1), dtype=bool)
    for index, name in enumerate(extra.ids):
        keys = [("content", one.files.digests[name]), *([("group", extra.names[index])] if extra.names else [])]
        for side in set().union(*(parts_of.get(key, ()) for key in keys)) - {ALWAYS}:
            found[group[index], folds if side == HOLDOUT else side] = True
    return found[group]


def _apart(found: Sequence[Found], fold: int) -> list[LeftOut]:
    """The extra images that do not train while a fold validates."""
    names = [
        _described(one.extra.images.ids[index], one.extra.images.names[index] if one.extra.images.names else "")
        for one in found
        for index in np.flatnonzero(one.extra.apart(fold))
    ]
    words = f"additional images of groups that validate in fold {fold}; they train in the other folds"
    return [LeftOut(words, tuple(names))] if names else []


def _alike(data: Data, digests: Mapping[str, str], found: Sequence[Found]) -> list[LeftOut]:
    """The extra images that resemble one that is scored, but for those of the same content, which are known already."""
    if not found:
        return []
    scored = data.images.take(np.concatenate([data.split.valid, data.split.holdout]))
    view = max(data.views, key=lambda view: (view.crop == "none", not view.needs_face, view.height * view.width))
    seen = open_view(data.views[view])
    prints, names = fingerprints(seen.images, seen.rows(scored.ids)), []
    for one in found:
        extra = one.extra.images
        seen = open_view(one.extra.views[view])
        first = first_alike(fingerprints(seen.images, seen.rows(extra.ids)), prints)
        pairs = [(name, scored.ids[place]) for name, place in zip(extra.ids, first.tolist(), strict=True) if place >= 0]
        names += [f"{name} (like {other})" for name, other in pairs if one.files.digests[name] != digests[other]]
    words = "additional images that resemble one of validation or hold-out; where they are copies, remove them"
    return [LeftOut(words, tuple(names))] if names else []


def _described(name: str, group: str) -> str:
    return f"{name} ({group})" if group else name
