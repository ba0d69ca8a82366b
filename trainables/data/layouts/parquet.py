"""Parquet files that hold the images themselves, as Hugging Face's datasets write them: a column `image` of {bytes, path}, and others.

Their images are written once into a folder of the cache, a few at a time, and are files like any others from then on.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.data.images import DataError, Images, Unlabelled
from trainables.data.layouts import parts
from trainables.data.layouts.labelling import choose, label, rows_to_predict, take_rows
from trainables.data.layouts.layout import Layout, Listing
from trainables.data.layouts.named_images import Row
from trainables.data.names import shown, some
from trainables.data.settings import DataConfig
from trainables.data.targets import Scheme
from trainables.data.view_store import cache_folder
from trainables.progress import waiting
from trainables.storage import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 64  # images in memory at a time
SUFFIX = ".parquet"
# Suffixes by what an image begins with, for those that are without a name.
KINDS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp", b"II*": ".tif", b"MM": ".tif"}


def parquet_rows(file: Path, without: str = "") -> list[Row]:
    """The rows of a Parquet file, but for a column, as text, as those of a CSV table are. Raises: DataError."""
    with _opened(file) as opened:
        schema = opened.schema_arrow
        names = [name for name in schema.names if name != without and not name.startswith("__index_level_")]
        count, table = opened.metadata.num_rows, opened.read(columns=names)
    words = _class_names(schema)
    columns = [[_text(value, words.get(name)) for value in table.column(name).to_pylist()] for name in names]
    rows = zip(*columns, strict=True) if columns else [()] * count
    return [(f"{file}: row {number}", dict(zip(names, fields, strict=True))) for number, fields in enumerate(rows, 1)]


def list_images(source: Path, settings: DataConfig) -> Listing:
    """The images in a Parquet file, or in those of a folder, unpacked. Raises: DataError."""
    files = files_of(source)
    column = image_column(files[0], settings)
    root = _unpacked_folder(source, files, column)
    names = _unpacked(source, files, column, root)
    rows = [row for file in files for row in parquet_rows(file, without=column)]
    columns = list(rows[0][1]) if rows else []
    strange = next((place for place, fields in rows if list(fields) != columns), None)
    if strange or not rows:
        raise DataError(f"{strange}: its columns are not those of {files[0].name}." if strange else f"{source}: holds no row.")
    part_of = {file.name: parts.part_in(file.stem, settings) or "" for file in files} if len(files) > 1 else {}
    split = [part for name, part in part_of.items() for _ in names[name]]
    return Listing(
        root=root,
        ids=tuple(name for file in files for name in names[file.name]),
        columns={name: tuple(fields[name] for _, fields in rows) for name in columns},
        places=tuple(place for place, _ in rows),
        read_as=(f"images in column {column} of {len(files)} Parquet files, unpacked to {root}",),
        split=tuple(split) if all(split) else (),
    )


def read_unlabelled(source: Path, settings: DataConfig) -> Unlabelled | None:
    """The images of the test part, where none of them has a target: -1 is what Hugging Face writes for a class that is not told."""
    listing = list_images(source, settings)
    chosen = choose(source, listing, settings)
    rows = rows_to_predict(listing, chosen, settings)
    return Unlabelled(listing.root, take_rows(listing, rows).ids, ("image", *chosen.targets[:1]), by_name=True) if rows else None


def files_of(source: Path) -> list[Path]:
    """The Parquet files that a source is: itself, or those directly in it or in its folder data/."""
    folders = [source, source / "data"] if source.is_dir() else []
    return sorted(file for folder in folders for file in folder.glob(f"[!.]*{SUFFIX}")) if folders else [source]


def image_column(file: Path, settings: DataConfig) -> str:
    """The column that holds images; empty where none does. Raises: DataError for one that is named and holds none."""
    import pyarrow as pa

    with _opened(file) as opened:
        schema = opened.schema_arrow
    holding = []
    for field in schema:
        inner = field.type
        if (
            pa.types.is_struct(inner)
            and inner.get_field_index("bytes") >= 0
            or pa.types.is_binary(inner)
            or pa.types.is_large_binary(inner)
        ):
            holding.append(field.name)
    if settings.image and holding and settings.image not in holding:
        raise DataError(f"{file}: data/image is {settings.image}, which holds no images; those that do are {some(holding)}.")
    return settings.image if settings.image in holding else "image" if "image" in holding else holding[0] if holding else ""


def _opened(file: Path) -> "pq.ParquetFile":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a Parquet file ({error}).") from None


def _unpacked_folder(source: Path, files: Sequence[Path], column: str) -> Path:
    stamps = [column, *((str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files)]
    return unpacked_folder() / f"{source.stem}-{hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:12]}"


def unpacked_folder() -> Path:
    """Where the images lie that were unpacked."""
    return cache_folder() / "unpacked"


def _unpacked(source: Path, files: Sequence[Path], column: str, root: Path) -> dict[str, list[str]]:
    """Paths below the root of the images in each file, by its name; they are written there unless they are there. Raises: DataError."""
    manifest = root / "names.json"
    if not manifest.exists():
        with waiting(f"unpacking the images of {shown(str(source))} to {root}"):
            names = {file.name: _unpack(file, column, root) for file in files}
        # Last: where it is, all images are.
        write_atomically(manifest, json.dumps(names).encode())
    return json.loads(manifest.read_bytes())


def _unpack(file: Path, column: str, root: Path) -> list[str]:
    found: dict[str, None] = {}
    with _opened(file) as opened:
        for batch in opened.iter_batches(batch_size=BATCH, columns=[column]):
            for held in batch.column(0).to_pylist():
                content, path = (held.get("bytes"), held.get("path")) if isinstance(held, dict) else (held, None)
                row = len(found) + 1
                if not content:
                    raise DataError(f"{file}: row {row} holds no image in column {column}. Remove it, or write the bytes.")
                name = _name(file, row, path, content)
                name = _name(file, row, None, content) if name in found else name
                found[name] = None
                target = root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    return list(found)


def _name(file: Path, number: int, path: str | None, content: bytes) -> str:
    """The image's own path below the name of its file, or its row where it has none that may be used."""
    steps = [step for step in re.split(r"[\\/]", path or "") if step not in ("", ".")]
    if not steps or ".." in steps or any(step.startswith(".") for step in steps):
        suffix = next((suffix for start, suffix in KINDS.items() if content.startswith(start)), "")
        steps = [f"{number:07d}{suffix}"]
    return "/".join([file.stem, *steps])


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """By column, the names of its classes, where Hugging Face's features give them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if isinstance(feature, dict) and "names" in feature}
    except (KeyError, ValueError, TypeError):
        return {}


def _text(value: Any, names: Sequence[str] | None) -> str:
    if value is None:
        return ""
    if names is not None and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""
    return value if isinstance(value, str) else str(value)


def fits(source: Path, settings: DataConfig) -> bool:
    """Whether a file, or a folder of them, holds images themselves."""
    if source.is_file():
        return source.suffix.lower() == SUFFIX and bool(image_column(source, settings.model_copy(update={"image": ""})))
    files = files_of(source) if source.is_dir() else []
    return bool(files) and bool(image_column(files[0], settings.model_copy(update={"image": ""})))


def _read(source: Path, settings: DataConfig) -> Images:
    return label(source, list_images(source, settings), settings)


def _scheme(source: Path, settings: DataConfig) -> Scheme:
    return _read(source, settings).scheme


LAYOUT = Layout(
    name="parquet", title="Parquet files with images in them", fits=fits, read=_read, scheme=_scheme, unlabelled=read_unlabelled
)
