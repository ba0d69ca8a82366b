"""From rows that name images to the images: which column names them, in which folder they are, and those that are not there."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainables.data.images import DataError, LeftOut
from trainables.data.layouts.image_files import SUFFIXES, Finder
from trainables.data.layouts.layout import Listing
from trainables.data.names import shown, some
from trainables.data.rows import plain_name, refuse
from trainables.data.settings import DataConfig

MOST_MISSING = 0.05  # share of the images named above which something is wrong with the table
# What a column is called that names the image, without spaces and underscores; the first that finds files is taken.
COLUMNS = (
    "image", "images", "filename", "filenames", "file", "files", "imagefilename", "imagefile", "imagename", "imagepath", "filepath",
    "path", "paths", "filepaths", "imagepaths", "relpath", "relativepath", "img", "imgname", "imgpath", "imageid", "imgid", "photo",
    "picture", "name", "id", "idcode",
)  # fmt: skip

Row = tuple[str, Mapping[str, str]]  # where it stands, such as photos.csv:3, and its fields by column


def image_column(source: Path, rows: Sequence[Row], columns: Sequence[str], finder: Finder, settings: DataConfig) -> str:
    """The column that names the images. Raises: DataError naming the columns there are, and what to type."""
    if settings.image:
        found = [name for name in columns if plain_name(name).lower() == plain_name(settings.image).lower()]
        if not found:
            raise DataError(f"{source}: data/image is {settings.image}, and there is no such column; there are {some(columns, most=40)}.")
        return found[0]
    by_name = {re.sub(r"[^a-z]", "", name.lower()): name for name in reversed(columns)}
    usual = [by_name[name] for name in COLUMNS if name in by_name]
    counts = {name: _count_found(rows, name, finder, settings) for name in usual}
    if usual and max(counts.values()):
        return max(usual, key=lambda name: counts[name])
    others = {name: _count_found(rows, name, finder, settings) for name in columns if name not in usual}
    if any(others.values()):
        return max(others, key=lambda name: others[name])
    if usual:
        return usual[0]
    raise DataError(f"{source}: no column names the images; there are {some(columns, most=40)}. Say which does: --set data/image=NAME")


def list_rows(
    source: Path,
    root: Path,
    rows: Sequence[Row],
    column: str,
    settings: DataConfig,
    finder: Finder,
    wanted: str,
    read_as: Sequence[str] = (),
) -> Listing:
    """The rows whose images are there, as a listing.

    Args:
        source: of the rows, for messages.
        root: the folder below which the images are.
        column: that names the images.
        wanted: a word that the folder of these images may have in its name, such as train.
    Raises: DataError where more than a few images are missing, and where two rows are of one image.
    """
    names = _without_what_all_begin_with([fields[column] for _, fields in rows])
    base = settings.images.strip("/") if settings.images and not _leads_out(settings.images) else finder.choose_folder(names, wanted)
    paths = [finder.find(base, name) if name.strip() else None for name in names]
    if _share(paths) > MOST_MISSING:
        elsewhere = finder.anywhere(names)
        if len(elsewhere) > sum(path is not None for path in paths):
            paths = [path or elsewhere.get(name) for path, name in zip(paths, names, strict=True)]
            base = ""
    missing = tuple(f"{place}: {fields[column]!r}" for (place, fields), path in zip(rows, paths, strict=True) if path is None)
    _refuse_missing(source, root, missing, len(rows), column, base)
    kept = [(place, fields, path) for (place, fields), path in zip(rows, paths, strict=True) if path is not None]
    refuse(source, _repeated(kept, column))
    where = f" in {shown(base)}/" if base else ""
    others = [name for name in (rows[0][1] if rows else ()) if name != column]
    return Listing(
        root=root,
        ids=tuple(path for *_, path in kept),
        columns={name: tuple(fields[name] for _, fields, _ in kept) for name in others},
        places=tuple(place for place, *_ in kept),
        read_as=(*read_as, f"images{where}, named by {shown(column)}"),
        notes=(LeftOut("missing images, left out", missing),) if missing else (),
    )


def root_of(file: Path, settings: DataConfig) -> Path:
    """The folder below which a table's images are: the table's own, unless data/images leads out of it."""
    return file.parent / settings.images if settings.images and _leads_out(settings.images) else file.parent


def _leads_out(folder: str) -> bool:
    return os.path.isabs(folder) or ".." in Path(folder).parts


def _count_found(rows: Sequence[Row], column: str, finder: Finder, settings: DataConfig) -> int:
    names = _without_what_all_begin_with([fields[column] for _, fields in rows[:: max(1, len(rows) // 50)]])
    base = settings.images.strip("/") if settings.images and not _leads_out(settings.images) else finder.choose_folder(names, "")
    # A number is the name of a file only where it finds one whose suffix is left out; a folder is no image.
    return sum(path is not None and path.lower().endswith(SUFFIXES) for path in (finder.find(base, name) for name in names if name.strip()))


def _without_what_all_begin_with(names: Sequence[str]) -> list[str]:
    """Absolute paths, of another machine it may be, without the folder that all of them are in."""
    plain = [name.strip().replace("\\", "/") if re.match(r"(/|[A-Za-z]:[\\/])", name) else name.strip() for name in names]
    absolute = [name for name in plain if re.match(r"(/|[A-Za-z]:/)", name)]
    if not absolute or len(absolute) < len([name for name in plain if name]):
        return plain
    shared = os.path.commonprefix([name.rpartition("/")[0].split("/") for name in absolute])
    return ["/".join(name.split("/")[len(shared) :]) for name in plain]


def _share(paths: Sequence[str | None]) -> float:
    return paths.count(None) / len(paths) if paths else 0.0


def _refuse_missing(source: Path, root: Path, missing: Sequence[str], rows: int, column: str, base: str) -> None:
    if len(missing) <= MOST_MISSING * rows:
        return
    where = root / base if base else root
    if len(missing) == rows:
        fix = f"Say where they are, from {source.parent}: --set data/images=FOLDER; or which column names them: --set data/image=NAME"
        raise DataError(f"{source}: none of the {rows} images that column {column} names is below {where}: {some(missing)}. {fix}")
    fix = "Put them there, remove their rows, or say where they are: --set data/images=FOLDER"
    raise DataError(f"{source}: {len(missing)} of {rows} images are not in {where}: {some(missing)}. {fix}")


def _repeated(kept: Sequence[tuple[str, Mapping[str, str], str]], column: str) -> list[str]:
    first: dict[str, tuple[str, Mapping[str, str]]] = {}
    mistakes = []
    for place, fields, path in kept:
        before, other = first.setdefault(path, (place, fields))
        if before != place:
            unlike = [name for name in fields if name != column and fields[name] != other[name]]
            differ = [f"{name} is {fields[name]!r} and was {other[name]!r}" for name in unlike]
            what = f", where {', '.join(differ)}" if differ else ""
            mistakes.append(f"{place}: image {path} is in {before} already{what}; keep one row.")
    return mistakes
