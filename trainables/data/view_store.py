"""Stores: the decoded images of one view in one file, each found by the sha256 of the image file that it was made of.

A store is a folder of the cache:

    index     a line of JSON that names the file of pixels and says what it shows, then an ENTRY for each row
    images-*  uint8 pixels, one image after another; row 0 is black and stands for all that cannot be decoded
    use       empty; locked while a process uses the store

Pixels are written before the entries that refer to them, and an index is extended or replaced as a whole. So whatever ends a writer,
readers find whole images only, and the next writer writes over the rest. A writer holds the lock of the cache; readers need none, and
what they have mapped stays theirs even when the store is removed.
"""

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from uuid import uuid4
from weakref import finalize

import numpy as np

from search_spaces.errors import UserError
from trainables.commands import typed
from trainables.storage import remove_partials, write_atomically

FORMAT = 5  # of stores, and of what decodes for them; those of another one are not read
INDEX, USE, LOCK = "index", "use", "lock"
ENTRY = np.dtype(
    [
        ("content", "V32"),  # sha256 of the image file
        ("pixels", "V32"),  # sha256 of the row
        ("used", "<u4"),  # when a command last asked for it, in seconds since 1970
        ("without_face", "?"),  # the view needs a face and none was detected, so the centre is shown
        ("changes", "<u2"),  # what was done to the pixels of the file, in bits
    ]
)
BLACK = bytes(32).hex()  # the content of row 0
DAY = 24 * 60 * 60  # seconds; times of use are not kept more exactly
LIMIT = 50_000_000_000  # bytes that stay when no command uses them
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
OLD = ("*.npy", "*.json", "*.partial", "*.fetching", "fetch.lock")  # what earlier versions left beside the stores


class CacheError(UserError, OSError):
    """The cache cannot be written or has no room; the text says where and how to fix it. Its errno is that of the cause."""

    def __str__(self) -> str:
        return str(self.strerror)


def cache_folder() -> Path:
    """Where decoded views and the demo data lie: $SWEEPVOTE_CACHE, or a folder among the user's caches."""
    named = os.environ.get("SWEEPVOTE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweepvote"


def view_cache() -> Path:
    """Where every command looks for decoded views."""
    return cache_folder() / "views"


def features_folder() -> Path:
    """Where the features that frozen networks give are kept (see `trainables.features`)."""
    return cache_folder() / "features"


def cache_limit() -> int:
    """Bytes of decoded images that stay when no command uses them: $SWEEPVOTE_CACHE_LIMIT, such as 200GB, or LIMIT.

    Raises: CacheError when that is no size.
    """
    text = os.environ.get("SWEEPVOTE_CACHE_LIMIT", "").strip()
    if not text:
        return LIMIT
    if not (size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.lower())):
        raise CacheError(errno.EINVAL, f"SWEEPVOTE_CACHE_LIMIT is {text!r}, not a size; write a number with a unit, such as 200GB")
    return int(float(size[1]) * UNITS[size[2]])


@dataclass(frozen=True)
class Stored:
    """What a store held when it was read."""

    head: dict[str, Any]  # format, images (file name), shape (height, width, 3), shows (words)
    entries: np.ndarray  # (rows,) of ENTRY
    images: np.ndarray  # (rows, height, width, 3) uint8, mapped into memory: processes of one machine share its pages

    @cached_property
    def row(self) -> dict[str, int]:
        """The row of each content, a sha256 in hex."""
        digits = self.entries["content"].tobytes().hex()
        return {digits[64 * row : 64 * row + 64]: row for row in range(len(self.entries))}


def read_store(folder: Path) -> Stored | None:
    """The store in a folder, or None where there is none or it is damaged."""
    # Again where the images of an index are gone: a new index has come in between.
    for _ in range(3):
        try:
            line, _, rest = (folder / INDEX).read_bytes().partition(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            head = json.loads(line)
            file, shape = folder / Path(head["images"]).name, tuple(map(int, head["shape"]))
            size = math.prod(shape)
            rows = min(len(rest) // ENTRY.itemsize, file.stat().st_size // size)
            if head["format"] != FORMAT or not rows:
                return None
            images = np.memmap(file, np.uint8, "r", shape=(rows, *shape)).view(np.ndarray)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, ZeroDivisionError):
            return None
        return Stored(head, np.frombuffer(rest, ENTRY, rows), images)
    return None


class Use:
    """Says that a store is in use, as long as this object lives in the process that made it; a copy in another process says nothing."""

    def __init__(self, folder: Path | None = None):
        # A cache that can only be read is never emptied from here.
        with suppress(OSError):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = (folder / USE).open("ab")
                fcntl.flock(self._file, fcntl.LOCK_SH)

    def lasts_as_long_as(self, thing: object) -> None:
        """Stay as long as some other object of this process."""
        finalize(thing, lambda use: None, self)

    def __reduce__(self) -> tuple:
        return Use, ()


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Be the only writer of a cache: waits for the one at work; the system takes the lock from a process that dies."""
    with in_words(cache):
        cache.mkdir(parents=True, exist_ok=True)
        handle = (cache / LOCK).open("ab")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Writer:
    """Adds rows to a store, which it makes where there is none; for whoever holds the cache's lock.

    What was added is found by others when the block ends, however it ends.
    """

    def __init__(self, folder: Path, shape: Sequence[int], shows: str):
        self._folder = folder
        with in_words(folder):
            stored = read_store(folder) or _new_store(folder, shape, shows)
            _remove_leftovers(folder, stored.head["images"])
            self.row = dict(stored.row)  # by content; those added are in it at once
            self._rows, self._size, self._added = len(stored.entries), math.prod(shape), []
            self._pixels = os.open(folder / stored.head["images"], os.O_RDWR)
            self._index = os.open(folder / INDEX, os.O_RDWR)
            # What a writer that was killed has left behind the last whole entry.
            os.ftruncate(self._index, len(_line(stored.head)) + self._rows * ENTRY.itemsize)
            os.lseek(self._index, 0, os.SEEK_END)

    def add(self, content: str, image: np.ndarray, without_face: bool = False, changes: int = 0) -> None:
        """Write an image (height, width, 3) as the next row, unless its content is there. Raises: CacheError."""
        if content in self.row:
            return
        pixels = np.ascontiguousarray(image)
        with in_words(self._folder):
            _write(self._pixels, pixels, (self._rows + len(self._added)) * self._size)
        self._added.append((bytes.fromhex(content), hashlib.sha256(pixels.data).digest(), int(time.time()), without_face, changes))
        self.row[content] = self._rows + len(self._added) - 1

    def publish(self) -> None:
        """Let others find what was added. Raises: CacheError."""
        if self._added:
            with in_words(self._folder):
                os.fsync(self._pixels)
                content = np.array(self._added, ENTRY).tobytes()
                _write(self._index, content, os.lseek(self._index, 0, os.SEEK_END))
                os.fsync(self._index)
            self._rows, self._added = self._rows + len(self._added), []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.publish()
            else:
                with suppress(CacheError):
                    self.publish()
        finally:
            os.close(self._pixels)
            os.close(self._index)


def note_use(cache: Path, folder: Path, contents: Collection[str]) -> None:
    """Note that these contents of a store are used now, unless that was noted today. A cache that cannot be written stays as it is."""
    stored, now = read_store(folder), int(time.time())
    if stored is None or not (_rows_of(stored, contents) & (stored.entries["used"] + DAY < now)).any():
        return
    with suppress(OSError), alone(cache):
        if stored := read_store(folder):
            entries = stored.entries.copy()
            entries["used"][_rows_of(stored, contents)] = now
            write_atomically(folder / INDEX, _line(stored.head) + entries.tobytes())


# What is kept, and for how long


@dataclass(frozen=True)
class Listed:
    """A store as `python -m trainables.cache` lists it."""

    folder: Path
    shows: str  # the view in words
    images: int
    size: int  # bytes on disk
    used: float  # seconds since 1970; 0 for one that is damaged
    in_use: bool


def list_stores(cache: Path) -> list[Listed]:
    """All stores of a cache, those that were used last first."""
    found = []
    for folder in _folders(cache):
        stored = read_store(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        with alone_with(folder) as unused:
            if stored is None:
                found.append(Listed(folder, "damaged, or of an earlier version", 0, size, 0, not unused))
            else:
                used = float(stored.entries["used"].max())
                found.append(Listed(folder, stored.head["shows"], len(stored.entries) - 1, size, used, not unused))
    return sorted(found, key=lambda one: -one.used)


def old_files(cache: Path) -> list[Path]:
    """What earlier versions of this project left in the cache; nothing reads it any more."""
    return sorted(file for pattern in OLD for file in cache.glob(pattern) if file.is_file())


def drop(cache: Path, before: float, keep: Mapping[Path, Collection[str]] | None = None) -> int:
    """Remove the images that no command has used since `before` (seconds since 1970), from stores that no command uses now.

    Args:
        keep: contents, by the store's folder, that stay in any case.
    Returns: bytes that were freed.
    """
    freed = 0
    with alone(cache):
        for folder in _folders(cache):
            with alone_with(folder) as unused:
                if unused:
                    freed += _drop_rows(folder, before, (keep or {}).get(folder, ()))
    return freed


def make_room(cache: Path, need: int, keep: Mapping[Path, Collection[str]]) -> None:
    """Remove the least recently used images where the cache would else hold more than its limit, or the disk has no room.

    What running commands use stays, even beyond the limit.

    Args:
        need: bytes to be added.
        keep: contents, by the store's folder, that stay.
    Raises: CacheError when the disk has no room even so.
    """
    with in_words(cache):
        cache.mkdir(parents=True, exist_ok=True)
    over = max(_total(cache) + need - cache_limit(), need - _free(cache))
    if over > 0:
        drop(cache, _used_before(cache, over, keep), keep)
    if need > _free(cache):
        _refuse(cache, errno.ENOSPC, f"decoded images need {need / 1e9:.1f} GB, and {_free(cache) / 1e9:.1f} GB are free")


@contextmanager
def in_words(place: Path) -> Iterator[None]:
    """Turn what the system says about writing in the cache into a CacheError."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        _refuse(place, error.errno, f"images cannot be written ({error.strerror or error})")


def _refuse(place: Path, number: int | None, why: str) -> None:
    fix = f"Free some disk space ({typed('trainables.cache')} lists and empties the cache), or set SWEEPVOTE_CACHE to a folder elsewhere"
    raise CacheError(number, f"{place}: {why}. {fix}.") from None


def _new_store(folder: Path, shape: Sequence[int], shows: str) -> Stored:
    folder.mkdir(parents=True, exist_ok=True)
    black = np.zeros(shape, np.uint8)
    head = {"format": FORMAT, "images": f"images-{uuid4().hex[:12]}", "shape": list(shape), "shows": shows}
    (folder / head["images"]).write_bytes(black.data)
    entry = np.array([(bytes.fromhex(BLACK), hashlib.sha256(black.data).digest(), int(time.time()), False, 0)], ENTRY)
    write_atomically(folder / INDEX, _line(head) + entry.tobytes())
    return Stored(head, entry, black[None])


def _line(head: dict[str, Any]) -> bytes:
    return json.dumps(head).encode() + b"\n"


def _write(file: int, content: Any, place: int) -> None:
    left = memoryview(content).cast("B")
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def _remove_leftovers(folder: Path, images: str) -> None:
    """Remove what writers that were killed have left beside the index and the file of pixels that it names."""
    remove_partials(folder)
    for file in folder.glob("images-*"):
        if file.name != images:
            file.unlink()


def _folders(cache: Path) -> list[Path]:
    return sorted({file.parent for name in (INDEX, "images-*") for file in cache.glob(f"*/{name}")})


@contextmanager
def alone_with(folder: Path) -> Iterator[bool]:
    """Whether no process uses the folder (see `Use`); if none does, none can begin to before the block ends."""
    with (folder / USE).open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _rows_of(stored: Stored, contents: Collection[str]) -> np.ndarray:
    """Whether each row (rows,) is of these contents."""
    rows = np.zeros(len(stored.entries), bool)
    rows[[stored.row[content] for content in contents if content in stored.row]] = True
    return rows


def _drop_rows(folder: Path, before: float, keep: Collection[str]) -> int:
    stored = read_store(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    if stored is not None:
        stay = _rows_of(stored, keep) | (stored.entries["used"] >= before)
        stay[0] = False
        if stay.any():
            stay[0] = True
            return 0 if stay.all() else _rewrite(folder, stored, stay)
    shutil.rmtree(folder, ignore_errors=True)
    return size


def _rewrite(folder: Path, stored: Stored, stay: np.ndarray) -> int:
    """Keep some rows (rows,) of a store. Needs room for them beside the old ones; where there is none, all stay."""
    head = stored.head | {"images": f"images-{uuid4().hex[:12]}"}
    rows = np.flatnonzero(stay)
    with suppress(OSError):
        try:
            with (folder / head["images"]).open("xb") as file:
                for start in range(0, len(rows), 256):
                    file.write(stored.images[rows[start : start + 256]])
                file.flush()
                os.fsync(file.fileno())
            write_atomically(folder / INDEX, _line(head) + stored.entries[rows].tobytes())
        except OSError:
            (folder / head["images"]).unlink(missing_ok=True)
            raise
        (folder / stored.head["images"]).unlink(missing_ok=True)
        return (len(stay) - len(rows)) * stored.images[0].nbytes
    return 0


def _used_before(cache: Path, over: int, keep: Mapping[Path, Collection[str]]) -> float:
    """The time such that images not used since then, in stores that no command uses, are at least `over` bytes, or all there are."""
    times, sizes = [np.zeros(0)], [np.zeros(0)]
    for folder in _folders(cache):
        with alone_with(folder) as unused:
            stored = read_store(folder)
            if unused and stored is not None:
                used = stored.entries["used"][~_rows_of(stored, [*keep.get(folder, ()), BLACK])]
                times.append(used)
                sizes.append(np.full(len(used), stored.images[0].nbytes))
    times, sizes = np.concatenate(times), np.concatenate(sizes)
    order = np.argsort(times)
    enough = np.searchsorted(sizes[order].cumsum(), over)
    return math.inf if enough >= len(order) else float(times[order[enough]]) + 1


def _total(cache: Path) -> int:
    return sum(file.stat().st_size for file in cache.glob("*/images-*"))


def _free(cache: Path) -> int:
    return shutil.disk_usage(cache).free
