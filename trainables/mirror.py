"""Images in an object store: copied once into a folder of this machine, which every command then uses.

    <cache>/copies/<hash of the address>/address   the folder in the store
                                         files/    all that lies below it, with the store's times
                                         lock      held by whoever copies
                                         use       locked while a command uses the copy

A file is complete as soon as it is there under its name: it is renamed when all of it has come. So a copy that was stopped is resumed
by the next command, and one that is complete costs a listing.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from trainables.ahead import ahead
from trainables.data.names import some
from trainables.data.view_store import CacheError, Use, alone, alone_with, cache_folder, in_words
from trainables.progress import progress_bar, waiting
from trainables.storage import (
    Address,
    StorageError,
    in_plain_words,
    open_folder,
    remove_partials,
    remove_tree,
    size_below,
    write_atomically,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

ADDRESS, FILES = "address", "files"
THREADS = 16  # a store answers slowly, and many at a time
CHUNK = 2**20  # bytes


_in_use: list[Use] = []  # by this process, as long as it runs


@dataclass(frozen=True)
class Copy:
    """What was copied from a store."""

    folder: Path
    address: str  # of the folder there
    size: int  # bytes on disk


def copies_folder() -> Path:
    """Where the copies lie."""
    return cache_folder() / "copies"


@cache
def local_folder(place: str | Path, *, whole: bool = True) -> Path:
    """The folder or file as a path of this machine: of an address, that of its copy, which is brought up to date, once in a process.

    What has the size and time of the store's file is not read again; what is no longer in the store is removed.

    Args:
        place: a path, or an address as `open_folder` takes it, which may have a * in its last part.
        whole: whether all that lies beside a file belongs to it, as images do to a table; else it comes alone.
    Raises: StorageError when the store cannot be read or has nothing there; CacheError when the disk has no room.
    """
    found = open_folder(str(place))
    if isinstance(found, Path):
        return found
    with waiting(f"listing {found}"):
        is_file = "*" in found.name or found.is_file()
        folder = found.parent if is_file else found
        listed = folder.files()
    if is_file and not whole:
        listed = [info for info in listed if info.path == found.path]
    if not listed:
        raise StorageError(f"{found}: there is no such file or folder, or nothing in it; correct the address, or the bucket's name")
    copy = copies_folder() / hashlib.sha256(str(folder if whole else found).encode()).hexdigest()[:16]
    _in_use.append(Use(copy))
    with alone(copy), in_words(copy):
        _bring(folder, listed, copy)
    return copy / FILES / found.name if is_file else copy / FILES


def original(path: Path) -> str:
    """How a run's card names its images: by the address that a path is of the copy of, or by the path."""
    path = path.resolve()
    copies = copies_folder().resolve()
    if not path.is_relative_to(copies):
        return str(path)
    copy, _, *rest = path.relative_to(copies).parts
    return "/".join([(copies / copy / ADDRESS).read_text(), *rest])


def list_copies() -> list[Copy]:
    """All copies, by their addresses."""
    found = [Copy(file.parent, file.read_text(), size_below(file.parent)) for file in copies_folder().glob(f"*/{ADDRESS}")]
    return sorted(found, key=lambda copy: copy.address)


def remove_copies() -> int:
    """Remove the copies that no command uses. Returns: bytes that were freed."""
    freed = 0
    for copy in list_copies():
        with alone_with(copy.folder) as unused:
            if unused:
                remove_tree(copy.folder)
                freed += copy.size
    return freed


def _bring(folder: Address, listed: "Sequence[FileInfo]", copy: Path) -> None:
    files = copy / FILES
    names = [info.path.removeprefix(f"{folder.path}/") for info in listed]
    if odd := [name for name in names if any(part in ("", ".", "..") for part in name.split("/"))]:
        raise StorageError(f"{folder}: {len(odd)} names are not valid paths: {some(odd)}. Rename them.")
    write_atomically(copy / ADDRESS, str(folder).encode())
    remove_partials(files)
    _remove_others(files, {*names})
    missing = [(info, files / name) for info, name in zip(listed, names, strict=True) if not _is_there(files / name, info)]
    need, free = sum(info.size for info, _ in missing), shutil.disk_usage(copy).free
    if need > free:
        fix = "Free some disk space, or set SWEEPVOTE_CACHE to a folder on another disk"
        raise CacheError(ENOSPC, f"{copy}: {folder} needs {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. {fix}.")
    with progress_bar(f"copying {need / 1e6:,.0f} MB from {folder}", len(missing)) as advance:
        for _ in ahead(lambda number: _fetch(folder, *missing[number]), len(missing), THREADS):
            advance(1)


def _is_there(file: Path, info: "FileInfo") -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    # Not every file system keeps parts of a second.
    return status.st_size == info.size and int(status.st_mtime) == info.mtime_ns // 10**9


def _fetch(folder: Address, info: "FileInfo", file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{uuid4().hex}.partial")
    try:
        with partial.open("xb") as target:
            target.writelines(_chunks(folder, info.path))
        if partial.stat().st_size != info.size:
            raise StorageError(f"{folder}: {info.path} changed while it was copied; start again")
        os.utime(partial, ns=(info.mtime_ns, info.mtime_ns))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(folder: Address, path: str) -> Iterator[bytes]:
    try:
        with in_plain_words(folder), folder.filesystem.open_input_stream(path) as source:
            while chunk := source.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise StorageError(f"{folder}: {path} was removed while it was copied; start again") from None


def _remove_others(files: Path, names: set[str]) -> None:
    for folder, _, found in os.walk(files, topdown=False):
        here = Path(folder)
        for name in found:
            if (here / name).relative_to(files).as_posix() not in names:
                (here / name).unlink()
        if here != files and not any(here.iterdir()):
            here.rmdir()
