"""A table of images, such as photos.csv, or a folder with one: a column names the images, others say what is on them.

Beside a table that is called after the training part, such as train.csv, those of the other parts are read: val.csv, test.csv. One
without the targets names images to predict, and sample_submission.csv says how the answer is written.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trainables.data.images import DataError, Images, LeftOut, Unlabelled
from trainables.data.layouts import class_folders, parts
from trainables.data.layouts.image_files import Finder, is_hidden, look_into
from trainables.data.layouts.labelling import Chosen, choose, label, rows_to_predict, take_rows
from trainables.data.layouts.layout import Layout, Listing
from trainables.data.layouts.list_files import is_list, list_entries
from trainables.data.layouts.named_images import Row, image_column, list_rows, root_of
from trainables.data.layouts.parquet import parquet_rows
from trainables.data.layouts.sample_submission import NAME, read_sample, samples_in
from trainables.data.names import some
from trainables.data.rows import read_table
from trainables.data.settings import DataConfig
from trainables.data.targets import Scheme

TABLES = (".csv", ".tsv", ".tab", ".parquet")
LISTS = (".txt", ".lst", ".list")


def read_listed(source: Path, settings: DataConfig) -> Images:
    """The images of the table, in its order. Raises: DataError naming everything that is wrong with it."""
    return label(source, _listing(find_table(source, settings), settings), settings)


def read_unlabelled(source: Path, settings: DataConfig) -> Unlabelled | None:
    """The images to predict: of the test part's table, of its rows without a target, or of a folder test/ that the table does not name."""
    file = find_table(source, settings)
    if not parts.are_used(settings):
        return None
    whole, to_predict = _with_siblings(file, settings)
    chosen = choose(file, whole, settings)
    found = to_predict or _without_target(whole, chosen, settings) or _loose(file, whole, settings)
    if not found:
        return None
    root, ids = found
    return _as_sample(file, Unlabelled(root, ids, ("image", *chosen.targets[:1]), by_name=True))


def find_table(source: Path, settings: DataConfig) -> Path:
    """The table itself, or the one that a folder holds: that of the training part, or the only one. Raises: DataError."""
    if not source.is_dir():
        return source
    tables = tables_in(source)
    training = [file for file in tables if parts.part_in(file.stem, settings) == parts.TRAIN] or tables
    if len(training) != 1:
        names = some([file.name for file in training])
        raise DataError(f"{source}: holds {len(training)} tables, {names}. Say which: --data {training[0]}")
    return training[0]


def tables_in(folder: Path) -> list[Path]:
    """The tables directly in a folder but those that say how an answer is written."""
    files = (entry for entry in sorted(folder.iterdir()) if entry.suffix.lower() in TABLES and entry.is_file())
    return [file for file in files if not is_hidden(file.name) and not NAME.search(file.name)]


def _listing(file: Path, settings: DataConfig) -> Listing:
    listing, _ = _with_siblings(file, settings)
    return listing


def _with_siblings(file: Path, settings: DataConfig) -> tuple[Listing, tuple[Path, tuple[str, ...]] | None]:
    """The table with those of other parts beside it that have its targets, and the images of a test part that has not."""
    own = parts.part_in(file.stem, settings)
    listing = _one_table(file, settings, "train" if own in (None, parts.TRAIN) else own)
    siblings = {part: other for part, other in _siblings(file, settings)} if own == parts.TRAIN else {}
    if not siblings:
        return listing, None
    targets = choose(file, listing, settings).targets
    found, to_predict = [(parts.TRAIN, listing)], None
    for part, other in siblings.items():
        beside = _one_table(other, settings, part)
        if all(name in beside.columns for name in targets):
            found.append((part, beside))
        elif part == parts.TEST:
            to_predict = beside.root, beside.ids
        else:
            lacks = ", ".join(name for name in targets if name not in beside.columns)
            raise DataError(f"{other}: lacks the target {lacks} that {file.name} has. Add it, or move the table elsewhere.")
    return (_joined(found) if len(found) > 1 else listing), to_predict


def _siblings(file: Path, settings: DataConfig) -> Iterator[tuple[str, Path]]:
    words = [(match[0], match.span()) for match in re.finditer(r"[A-Za-z]+", file.stem) if parts.part_of(match[0], settings) == parts.TRAIN]
    ((_, (start, end)),) = words
    for other in sorted(file.parent.iterdir()):
        head, tail = file.stem[:start], file.stem[end:]
        if other.suffix.lower() != file.suffix.lower() or not other.stem.startswith(head) or not other.stem.endswith(tail):
            continue
        word = other.stem[len(head) : len(other.stem) - len(tail)]
        if (part := parts.part_of(word, settings)) and part != parts.TRAIN:
            yield part, other


def _joined(found: Sequence[tuple[str, Listing]]) -> Listing:
    first = found[0][1]
    columns = [name for name in first.columns if all(name in one.columns for _, one in found)]
    return replace(
        first,
        ids=tuple(name for _, one in found for name in one.ids),
        columns={name: tuple(field for _, one in found for field in one.columns[name]) for name in columns},
        places=tuple(place for _, one in found for place in one.places),
        read_as=tuple(dict.fromkeys(line for _, one in found for line in one.read_as)),
        notes=tuple(note for _, one in found for note in one.notes),
        split=tuple(part for part, one in found for _ in one.ids),
    )


def _one_table(file: Path, settings: DataConfig, wanted: str) -> Listing:
    finder = Finder(root_of(file, settings))
    if file.suffix.lower() in LISTS and is_list(file, finder):
        rows, notes, words = list_entries(file), (), f"a list of images, {file.name}"
    else:
        rows, notes, words = _rows(file)
    if not rows:
        raise DataError(f"{file}: no row below the header. Write one for each image.")
    columns = list(rows[0][1])
    column = image_column(file, rows, columns, finder, settings)
    listing = list_rows(file, finder.root, rows, column, settings, finder, wanted, (words,))
    return replace(listing, notes=(*notes, *listing.notes))


def _rows(file: Path) -> tuple[list[Row], tuple[LeftOut, ...], str]:
    if file.suffix.lower() == ".parquet":
        return parquet_rows(file), (), f"a table, {file.name}"
    table = read_table(file)
    notes = table.notes + ((LeftOut("columns without a name, ignored", table.nameless),) if table.nameless else ())
    return [(f"{file}:{line}", fields) for line, fields in table.rows], notes, f"a table, {file.name}"


def _without_target(listing: Listing, chosen: Chosen, settings: DataConfig) -> tuple[Path, tuple[str, ...]] | None:
    rows = rows_to_predict(listing, chosen, settings)
    return (listing.root, take_rows(listing, rows).ids) if rows else None


def _loose(file: Path, listing: Listing, settings: DataConfig) -> tuple[Path, tuple[str, ...]] | None:
    """The images of a folder that is called after the test part, where the table names none of them."""
    folders = [name for name in look_into(file.parent).folders if parts.part_in(name, settings) == parts.TEST]
    named = set(listing.ids)
    found = [(name, [f"{name}/{image}" for image in look_into(file.parent / name).images]) for name in folders]
    loose = [images for _, images in found if images and not named.intersection(images)]
    return (file.parent, tuple(loose[0])) if len(loose) == 1 else None


def _as_sample(file: Path, images: Unlabelled) -> Unlabelled:
    """The images in the order, and under the columns, of a sample_submission.csv beside the table."""
    samples = samples_in(file.parent)
    if len(samples) != 1:
        return images
    found = read_sample(samples[0], images.root)
    strange = [name for name, path in zip(found.names, found.paths, strict=True) if path is None]
    if strange:
        raise DataError(f"{samples[0]}: {len(strange)} images are not in {images.root}: {some(strange)}. Put them there.")
    return replace(images, ids=tuple(filter(None, found.paths)), columns=found.columns, names=found.names)


def fits(source: Path, settings: DataConfig) -> bool:
    """Whether this is a table, or a folder with one whose folders are no classes."""
    if source.is_file():
        return source.suffix.lower() in (*TABLES, *LISTS)
    if not source.is_dir():
        return False
    tables = tables_in(source)
    training = [file for file in tables if parts.part_in(file.stem, settings) == parts.TRAIN]
    return len(training) == 1 or bool(tables) and not class_folders.fits(source, settings)


def _scheme(source: Path, settings: DataConfig) -> Scheme:
    return read_listed(source, settings).scheme


LAYOUT = Layout(name="table", title="a table", fits=fits, read=read_listed, scheme=_scheme, unlabelled=read_unlabelled)
