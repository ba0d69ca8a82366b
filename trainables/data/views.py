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
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.config import ViewConfig
from trainables.data.faces import VERSION, Box, Faces, Find, find_face, one_thread_each
from trainables.data.names import some
from trainables.data.photos import DataError, Photos, Unlabelled
from trainables.registry import choose
from trainables.storage import write_whole

FORMAT = 3  # of the files; another number makes old caches invisible
LARGEST = 100_000_000  # pixels of one photo; more is a bomb or a mistake
# What cameras, phones and the web make. Others stay closed: to open an EPS file is to run a program that it holds.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

Area = tuple[float, float, float, float]  # left, top, right, bottom in pixels of a photo
Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class View:
    """One geometry of the input. Settings that do not matter to its crop are as below, so views that see alike are equal."""

    crop: str
    fraction: float  # of each side that stays, or 1
    height: int  # pixels
    width: int
    box: tuple[int, int] | None = None  # height, width in pixels of the photo
    margin: float = 0.0  # on each side of a face, as a share of its box
    fit: str = "stretch"

    @classmethod
    def of(cls, config: ViewConfig) -> "View":
        """The view that a trial's settings ask for."""
        crop = choose(CROPS, config.crop, "view/crop")
        matters = {"fraction": 1.0} | {name: getattr(config, name) for name in crop.settings}
        return cls(crop=config.crop, height=config.height, width=config.width, fit=config.fit, **matters)

    @property
    def wants_face(self) -> bool:
        """Whether `look` has to be told where the photo's face is."""
        return CROPS[self.crop].wants_face

    def __str__(self) -> str:
        crop = CROPS[self.crop].words.format(**asdict(self))
        fit = "" if self.fit == "stretch" else self.fit
        return ", ".join(filter(None, (f"{self.height}x{self.width}", crop, fit)))


def _center(size: Size, view: View, face: Box | None) -> Area:
    width, height = size
    left, top = width * (1 - view.fraction) / 2, height * (1 - view.fraction) / 2
    return left, top, width - left, height - top


def _box(size: Size, view: View, face: Box | None) -> Area:
    width, height = size
    # Whole pixels: a box as large as the view is copied, not blurred.
    left, top = max(0, width - view.box[1]) // 2, max(0, height - view.box[0]) // 2
    return left, top, min(width, left + view.box[1]), min(height, top + view.box[0])


def _face(size: Size, view: View, face: Box | None) -> Area:
    if face is None:
        return _center(size, view, face)
    left, top, right, bottom = face
    across, down = view.margin * (right - left), view.margin * (bottom - top)
    return max(0, left - across), max(0, top - down), min(size[0], right + across), min(size[1], bottom + down)


@dataclass(frozen=True)
class Crop:
    """One way to choose what a view shows of a photo."""

    cut: Callable[[Size, View, Box | None], Area]
    settings: tuple[str, ...] = ()  # of ViewConfig and View, that `cut` reads
    words: str = ""  # how a view is named, with its fields to fill in
    wants_face: bool = False


CROPS = {
    "none": Crop(lambda size, view, face: (0, 0, *size)),
    "center": Crop(_center, ("fraction",), "center {fraction:g}"),
    "box": Crop(_box, ("box",), "box {box[0]}x{box[1]}"),
    "face": Crop(_face, ("margin", "fraction"), "face with margin {margin:g} or center {fraction:g}", wants_face=True),
}


def _stretch(area: Area, size: Size) -> tuple[Area, Size]:
    return area, size


def _cover(area: Area, size: Size) -> tuple[Area, Size]:
    left, top, right, bottom = area
    aspect = size[0] / size[1]
    across = max(0, right - left - (bottom - top) * aspect) / 2
    down = max(0, bottom - top - (right - left) / aspect) / 2
    return (left + across, top + down, right - across, bottom - down), size


def _contain(area: Area, size: Size) -> tuple[Area, Size]:
    left, top, right, bottom = area
    scale = min(size[0] / (right - left), size[1] / (bottom - top))
    return area, (max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top))))


# Each fit says what of the area is shown, and on how many pixels of the view; the others are black.
FITS: dict[str, Callable[[Area, Size], tuple[Area, Size]]] = {"stretch": _stretch, "cover": _cover, "contain": _contain}


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
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        # Pillow would name an object in memory; every caller knows the photo's name.
        raise ValueError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ValueError(f"its header claims far more pixels than the {LARGEST:,} that are read") from None
    with opened as photo:
        if photo.width * photo.height > LARGEST:
            raise ValueError(f"{photo.width} x {photo.height} pixels; at most {LARGEST:,} are read")
        photo.load()
        upright = ImageOps.exif_transpose(photo)
    if upright.mode == "I;16":
        # Pillow would clip 16 bits at 255, which leaves a white photo.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert("RGB")


def look(photo: Image.Image, view: View, face: Box | None = None) -> np.ndarray:
    """The photo as the model sees it: (height, width, 3) uint8.

    Args:
        face: what `find_face` finds in the photo; views that want no face do not ask for it.
    """
    canvas = Image.new("RGB", (view.width, view.height))
    area, size = FITS[view.fit](CROPS[view.crop].cut(photo.size, view, face), canvas.size)
    seen = photo.resize(size, Image.Resampling.BILINEAR, box=area, reducing_gap=2.0)
    canvas.paste(seen, ((view.width - size[0]) // 2, (view.height - size[1]) // 2))
    return np.asarray(canvas)


@dataclass(frozen=True)
class ViewFiles:
    """Where the views of a data set lie, what they were made of, and which photos could not be decoded."""

    files: dict[View, Path]
    bad: dict[str, str]  # photo id -> why; their rows are black
    digests: dict[str, str]  # photo id -> first 16 hex digits of the sha256 of its file; only a file that cannot be opened has none
    sums: dict[View, str]  # sha256 of the view's file, hex
    faceless: tuple[str, ...] = ()  # ids of the photos whose centre is shown because a view wants a face and they have none

    def faceless_words(self, photos: int) -> str:
        """How many of so many photos have no face, and the first of them."""
        found = f"no face found in {len(self.faceless)} of {photos} photos ({len(self.faceless) / photos:.1%})"
        return f"{found}: their centre is used instead: {some(self.faceless)}"


@dataclass(frozen=True)
class Sidecar:
    """What lies beside a view file, as JSON: how it came to be, and how to know it again."""

    bad: dict[str, str]  # as in ViewFiles
    photos: dict[str, str]  # the digests of ViewFiles; a view that came from another machine has none
    sha256: str  # of the view file, hex
    faceless: list[str]  # as in ViewFiles; empty for a view that wants no face


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
    photos: Photos | Unlabelled,
    views: Iterable[View],
    cache: Path,
    progress: Callable[[int], None] | None = None,
    find: Find = find_face,
) -> ViewFiles:
    """Decode every photo once, on all cores, into one uint8 array file (n, height, width, 3) per view that is not cached yet.

    Args:
        cache: folder of the files; they are written beside and renamed, so each is whole or absent. The faces found lie there, too.
        progress: called with 1 for each decoded photo.
        find: where the face of a photo is; asked once for each content, and only if a view wants it.
    Raises: DataError when the disk has no room for them.
    """
    files = _files(photos, views, cache)
    if missing := _missing(photos, files):
        cache.mkdir(parents=True, exist_ok=True)
        _decode(photos, missing, cache, progress or (lambda done: None), find)
    sidecars = {view: read_sidecar(file) for view, file in files.items()}
    return ViewFiles(
        files,
        bad={name: why for sidecar in sidecars.values() for name, why in sidecar.bad.items()},
        digests={name: digest for sidecar in sidecars.values() for name, digest in sidecar.photos.items()},
        sums={view: sidecar.sha256 for view, sidecar in sidecars.items()},
        faceless=tuple(dict.fromkeys(name for sidecar in sidecars.values() for name in sidecar.faceless)),
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


def _decode(photos: Photos | Unlabelled, files: dict[View, Path], cache: Path, progress: Callable[[int], None], find: Find) -> None:
    partial = {view: file.with_name(f"{file.stem}.{os.getpid()}.partial") for view, file in files.items()}
    try:
        arrays = {view: _new_array(partial[view], (len(photos.ids), view.height, view.width, 3)) for view in files}
        faces = Faces(cache / f"faces-{VERSION}.jsonl", find) if any(view.wants_face for view in files) else None

        bad, digests, boxes = {}, {}, {}

        def decode(row: int, name: str) -> None:
            try:
                with (photos.root / name).open("rb") as file:
                    digests[name] = _sha256(file)[:16]
                    file.seek(0)
                    photo = read_photo(file)
            except UNREADABLE as error:
                bad[name] = str(error) or type(error).__name__
                return
            boxes[name] = faces.of(photo, digests[name]) if faces else None
            for view, array in arrays.items():
                array[row] = look(photo, view, boxes[name])

        # Pillow and torch let go of the interpreter while they compute, so threads use all cores.
        with one_thread_each() if faces else nullcontext(), ThreadPoolExecutor(os.cpu_count()) as pool:
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
        faceless = [name for name in photos.ids if name in boxes and boxes[name] is None]
        for view, file in files.items():
            arrays[view].flush()
            with partial[view].open("rb") as whole:
                sha256 = _sha256(whole)
            write_sidecar(file, Sidecar(bad, digests, sha256, faceless if view.wants_face else []))
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
    text = json.dumps([FORMAT, VERSION if view.wants_face else "", asdict(view), stamps])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _in_order(found: dict[str, str], ids: Sequence[str]) -> dict[str, str]:
    return {name: found[name] for name in ids if name in found}


def _sidecar_file(file: Path) -> Path:
    return file.with_suffix(".json")


def _sha256(file: BinaryIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()
