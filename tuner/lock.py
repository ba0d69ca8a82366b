"""One command at a time works on a run."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import IO
from uuid import uuid4

from rich.console import Console

from trainables.record import RunError
from trainables.storage import Address, Folder, StorageError, write_atomically

BEAT = 4.0  # seconds between two heartbeats in an object store, which has no locks
PATIENCE = 3 * BEAT  # without one the holder is dead
LOCK = ".lock"


@contextmanager
def hold(run: Folder) -> Iterator[None]:
    """Keep others from this run until the end of the block or of the process, however it ends.

    Raises: RunError when another process holds it, or when nothing can be written there.
    """
    with _hold_local(run) if isinstance(run, Path) else _hold_remote(run):
        yield


def holder(run: Folder) -> str | None:
    """Which process holds a run, in words; None: nobody does. In an object store one that died without a word is still named."""
    if not isinstance(run, Path):
        mark = _read(run / LOCK)
        return json.loads(mark)["who"] if mark else None
    try:
        handle = (run / LOCK).open()
    except OSError:
        return None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return handle.read().strip() or "another process"
    return None


def show_lock(place: Folder, console: Console) -> None:
    """Say what the lock of a run in an object store is; a folder's lock is the system's and needs no words."""
    if isinstance(place, Address):
        console.print(
            f"{place}: in an object store the lock is a heartbeat written every {BEAT:g} s, not a conditional write. Of commands "
            f"started within seconds of each other one gets the lock, after {1.5 * BEAT:g} to {PATIENCE + 1.5 * BEAT:g} s.",
            soft_wrap=True,
        )


@contextmanager
def _hold_local(run: Path) -> Iterator[None]:
    try:
        handle = (run / LOCK).open("a+")
    except OSError as error:
        raise RunError(f"{run}: {error.strerror}; the records are written there, so give a --storage that can be written") from None
    with handle:
        try:
            _lock(handle)
        except OSError:
            handle.seek(0)
            raise _held(run, handle.read()) from None
        # The name of the holder, for whoever is refused; a full disk has no room for it, and that does not matter here.
        with suppress(OSError):
            os.truncate(handle.fileno(), 0)
            os.write(handle.fileno(), _who().encode())
        yield


def _lock(handle: IO[str]) -> None:
    """Raises: OSError where another process has it. The system releases it when the process ends, by kill -9 too."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Perhaps somebody only looked who holds it.
        sleep(0.1)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _hold_remote(run: Address) -> Iterator[None]:
    """A heartbeat in a store stands for the lock.

    The client of the stores has no conditional write, which would decide in one request who comes first. So a process that has written
    its mark waits for longer than a beat and reads it again: of several that found the run free the last one to write stays, and a holder
    that was overlooked has written over a late mark by then.
    """
    file, mark = run / LOCK, uuid4().hex
    before = _read(file)
    if before:
        # Clocks of two machines may differ, so what counts is whether the heartbeat changes.
        sleep(PATIENCE)
        if _read(file) not in (before, None):
            raise _held(run, json.loads(before)["who"])

    def sign(beat: int) -> None:
        write_atomically(file, json.dumps({"who": _who(), "beat": beat, "mark": mark}).encode())

    sign(-1)
    sleep(1.5 * BEAT)
    now = json.loads(_read(file) or "{}")
    if now.get("mark") != mark:
        raise _held(run, now.get("who", ""))
    done = Event()

    def beat() -> None:
        count = 0
        while True:
            # A store that fails for a moment must not make this process look dead for good.
            with suppress(StorageError):
                sign(count)
            count += 1
            if done.wait(BEAT):
                return

    beating = Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        file.unlink(missing_ok=True)


def _read(file: Address) -> str | None:
    with suppress(FileNotFoundError):
        return file.read_text()
    return None


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _held(run: Folder, who: str) -> RunError:
    return RunError(f"{run} is in use by {who.strip() or 'another process'}; wait until it ends, or stop it with: kill -TERM <its number>")
