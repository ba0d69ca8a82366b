"""Shipping: a view file reaches a node of a cluster once, in pieces, and is proven to be the file that was sent.

Photos have to lie on one node only, the one that decodes them. This module knows files; who carries the pieces is the caller's matter.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path

from trainables.data.views import Sidecar, read_sidecar, write_sidecar

PIECE = 32 * 2**20  # bytes: large enough for the network, small beside a node's memory


class ShippingError(OSError):
    """A view file that could not be brought to this node; the text says why and how to mend it."""


def read_piece(file: Path, index: int) -> bytes:
    """The piece of a file with this number, from 0 on; empty past the end."""
    with file.open("rb") as handle:
        handle.seek(index * PIECE)
        return handle.read(PIECE)


def ensure_view(name: str, sha256: str, cache: Path, fetch: Callable[[int], bytes]) -> Path:
    """The view file `name` in this machine's cache, fetched where it is missing or another one.

    Processes that ask at the same time wait for the one that fetches; whatever ends that one, the next takes over from the start.

    Args:
        sha256: of the file, hex.
        fetch: gives the piece with a number, from 0 on, and nothing past the end; what it raises is passed on.
    Raises: ShippingError when what arrives has another hash, and when it cannot be written here (with the errno of the cause).
    """
    file = cache / name
    if _is_there(file, sha256):
        return file
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / "fetch.lock"):
        if not _is_there(file, sha256):
            _fetch(file, sha256, fetch)
    return file


def _is_there(file: Path, sha256: str) -> bool:
    sidecar = read_sidecar(file)
    return file.is_file() and sidecar is not None and sidecar.sha256 == sha256


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; the system takes it from a process that dies."""
    with lock.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(file: Path, sha256: str, fetch: Callable[[int], bytes]) -> None:
    for abandoned in file.parent.glob("*.fetching"):
        # Whoever holds the lock is the only one who fetches: these are of processes that died.
        abandoned.unlink()
    partial = file.with_suffix(".fetching")
    found = hashlib.sha256()
    try:
        for piece in takewhile(len, map(fetch, count())):
            _append(partial, piece)
            found.update(piece)
        if found.hexdigest() != sha256:
            raise ShippingError(
                f"{file}: what arrived has the sha256 {found.hexdigest()}, expected was {sha256}. The file was damaged on its way or "
                "where it came from; delete it there and start again."
            )
        # First of all, so that the new sidecar never stands beside the old file, wherever this process may die.
        file.unlink(missing_ok=True)
        if (known := read_sidecar(file)) is None or known.sha256 != sha256:
            write_sidecar(file, Sidecar(bad={}, photos={}, sha256=sha256, faceless=[]))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _append(file: Path, piece: bytes) -> None:
    try:
        with file.open("ab") as handle:
            handle.write(piece)
            handle.flush()
            os.fsync(handle.fileno())  # some file systems find out only here that there is no room
    except OSError as error:
        mend = "Free some room, or set SWEEPVOTE_CACHE to a folder on another disk of this machine"
        raise ShippingError(error.errno, f"{file.parent}: a view cannot be written ({error.strerror}). {mend}.") from None
