"""Views: the deterministic geometry of an input, decoded once into a memory-mapped file that all trials share.

Training, validation, inference and the demo start from `look`, so there is no second list of transforms to forget.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.choices import choose
from trainables.config import ViewConfig
from trainables.data.photos import DataError, Photos, Unlabelled
from trainables.storage import write_whole

FORMAT = 2  # of the files; another number makes old caches invisible
LARGEST = 100_000_000  # pixels of one photo; more is a bomb or a mistake
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

# Each crop says which share of both sides stays, around the middle.
CROPS: dict[str, Callable[[ViewConfig], float]] = {
    "none": lambda config: 1.0,
    "center": lambda config: config.fraction,
}


@dataclass(frozen=True)
class View:
    """One geometry of the input."""

    crop: str
    fraction: float  # of each side that stays
    height: int  # pixels
    width: int

    @classmethod
    def of(cls, config: ViewConfig) -> "View":
        """The view that a trial's settings ask for."""
        return cls(config.crop, choose(CROPS, config.crop, "view/crop")(config), config.height, config.width)

    def __str__(self) -> str:
        crop = "" if self.crop == "none" else f", {self.crop} {self.fraction:g}"
        return f"{self.height}x{self.width}{crop}"


def cache_folder() -> Path:
    """Where decoded views and the demo data lie: $SWEEPVOTE_CACHE, or a folder among the user's caches."""
    named = os.environ.get("SWEEPVOTE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweepvote"


def view_cache() -> Path:
    """Where every command looks for decoded views."""
    return cache_folder() / "views"


def read_photo(file: Path | BinaryIO) -> Image.Image:
    """The photo in RGB, upright. Raises: one of UNREADABLE for a damaged, lying or oversized file."""
    try:
        opened = Image.open(file)
    except UnidentifiedImageError:
        # Pillow would name an object in memory; every caller knows the photo's name.
        raise ValueError("not an image of a known format") from None
    with opened as photo:
        if photo.width * photo.height > LARGEST:
            raise ValueError(f"{photo.width} x {photo.height} pixels; at most {LARGEST:,} are read")
        photo.load()
        upright = ImageOps.exif_transpose(photo)
    if upright.mode == "I;16":
        # Pillow would clip 16 bits at 255, which leaves a white photo.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert("RGB")


def look(photo: Image.Image, view: View) -> np.ndarray:
    """The photo as the model sees it: (height, width, 3) uint8."""
    left = photo.width * (1 - view.fraction) / 2
    top = photo.height * (1 - view.fraction) / 2
    box = (left, top, photo.width - left, photo.height - top)
    return np.asarray(photo.resize((view.width, view.height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))


@dataclass(frozen=True)
class ViewFiles:
    """Where the views of a data set lie, what they were made of, and which photos could not be decoded."""

    files: dict[View, Path]
    bad: dict[str, str]  # photo id -> why; their rows are black
    digests: dict[str, str]  # photo id -> first 16 hex digits of the sha256 of its file; only a file that cannot be opened has none
    sums: dict[View, str]  # sha256 of the view's file, hex


@dataclass(frozen=True)
class Sidecar:
    """What lies beside a view file, as JSON: how it came to be, and how to know it again."""

    bad: dict[str, str]  # as in ViewFiles
    photos: dict[str, str]  # the digests of ViewFiles; a view that came from another machine has none
    sha256: str  # of the view file, hex


def read_sidecar(file: Path) -> Sidecar | None:
    """What is known about a view file, or None where that is missing or damaged."""
    try:
        return Sidecar(**json.loads(_sidecar_file(file).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_sidecar(file: Path, sidecar: Sidecar) -> None:
    """Put this beside a view file, whole or not at all."""
    write_whole(_sidecar_file(file), json.dumps(asdict(sidecar), indent=1).encode())


def build_views(
    photos: Photos | Unlabelled, views: Iterable[View], cache: Path, progress: Callable[[int], None] | None = None
) -> ViewFiles:
    """Decode every photo once, on all cores, into one uint8 array file (n, height, width, 3) per view that is not cached yet.

    Args:
        cache: folder of the files; they are written beside and renamed, so each is whole or absent.
        progress: called with 1 for each decoded photo.
    Raises: DataError when the disk has no room for them.
    """
    files = _files(photos, views, cache)
    if missing := _missing(photos, files):
        cache.mkdir(parents=True, exist_ok=True)
        _decode(photos, missing, progress or (lambda done: None))
    sidecars = {view: read_sidecar(file) for view, file in files.items()}
    return ViewFiles(
        files,
        bad={name: why for sidecar in sidecars.values() for name, why in sidecar.bad.items()},
        digests={name: digest for sidecar in sidecars.values() for name, digest in sidecar.photos.items()},
        sums={view: sidecar.sha256 for view, sidecar in sidecars.items()},
    )


def count_missing(photos: Photos | Unlabelled, views: Iterable[View], cache: Path) -> int:
    """How many photos `build_views` would have to decode: all or none."""
    return len(photos.ids) if _missing(photos, _files(photos, views, cache)) else 0


def open_view(file: Path) -> np.ndarray:
    """The array (n, height, width, 3), mapped into memory: trials of one machine share its pages."""
    return np.load(file, mmap_mode="r")


def channel_statistics(view: np.ndarray, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale 0 to 1, over all pixels of the given rows."""
    histogram = np.zeros((3, 256))
    for start in range(0, len(rows), 256):
        pixels = view[np.sort(rows[start : start + 256])].reshape(-1, 3)
        histogram += [np.bincount(pixels[:, channel], minlength=256) for channel in range(3)]
    share = histogram / histogram.sum(axis=1, keepdims=True)
    level = np.arange(256) / 255
    mean = share @ level
    std = np.sqrt(share @ level**2 - mean**2)
    return tuple(mean.tolist()), tuple(std.tolist())


def _files(photos: Photos | Unlabelled, views: Iterable[View], cache: Path) -> dict[View, Path]:
    stamps = [(name, *_stamp(photos.root / name)) for name in photos.ids]
    return {view: cache / f"{_key(view, stamps)}.npy" for view in sorted(set(views), key=str)}


def _missing(photos: Photos | Unlabelled, files: dict[View, Path]) -> dict[View, Path]:
    return {view: file for view, file in files.items() if not (file.is_file() and _knows(read_sidecar(file), photos.ids))}


def _knows(sidecar: Sidecar | None, ids: Sequence[str]) -> bool:
    # A view that came from another machine has the right pixels, but cannot say which of its rows are no photo.
    return sidecar is not None and set(ids) <= sidecar.photos.keys() | sidecar.bad.keys()


def _decode(photos: Photos | Unlabelled, files: dict[View, Path], progress: Callable[[int], None]) -> None:
    partial = {view: file.with_name(f"{file.stem}.{os.getpid()}.partial") for view, file in files.items()}
    try:
        arrays = {view: _new_array(partial[view], (len(photos.ids), view.height, view.width, 3)) for view in files}

        bad, digests = {}, {}

        def decode(row: int, name: str) -> None:
            try:
                with (photos.root / name).open("rb") as file:
                    digests[name] = _sha256(file)[:16]
                    file.seek(0)
                    photo = read_photo(file)
                for view, array in arrays.items():
                    array[row] = look(photo, view)
            except UNREADABLE as error:
                bad[name] = str(error) or type(error).__name__

        # Pillow lets go of the interpreter while it decodes and resizes, so threads use all cores.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(decode, row, name) for row, name in enumerate(photos.ids)]
            try:
                for done in as_completed(jobs):
                    done.result()
                    progress(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        # Threads finish in any order; what is written keeps that of the photos.
        bad, digests = _in_order(bad, photos.ids), _in_order(digests, photos.ids)
        for view, file in files.items():
            arrays[view].flush()
            with partial[view].open("rb") as whole:
                sha256 = _sha256(whole)
            write_sidecar(file, Sidecar(bad, digests, sha256))
            partial[view].replace(file)
    finally:
        for file in partial.values():
            file.unlink(missing_ok=True)


def _new_array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    size = file.stat().st_size
    with file.open("r+b") as handle:
        try:
            # A sparse file would kill the process with SIGBUS when the disk fills up; asking for the room first fails in words.
            os.posix_fallocate(handle.fileno(), 0, size)
        except OSError as error:
            need = f"{size / 1e9:.1f} GB of decoded photos ({error.strerror})"
            mend = "Free it, or set SWEEPVOTE_CACHE to a folder on another disk"
            raise DataError(f"{file.parent}: no room for {need}. {mend}.") from None
    return array


def _stamp(file: Path) -> Sequence[int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _key(view: View, stamps: list[tuple[str, int, int]]) -> str:
    text = json.dumps([FORMAT, asdict(view), stamps])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _in_order(found: dict[str, str], ids: Sequence[str]) -> dict[str, str]:
    return {name: found[name] for name in ids if name in found}


def _sidecar_file(file: Path) -> Path:
    return file.with_suffix(".json")


def _sha256(file: BinaryIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()
