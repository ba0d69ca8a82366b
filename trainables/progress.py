"""Progress of all commands: a bar or a spinner on a terminal; elsewhere, as in a log file, a line now and then.

Whatever a command does for longer than `SILENCE` seconds it does within one of these two, so that it never appears to hang.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import Event, Thread
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainables.console import open_console

SILENCE = 5.0  # seconds without a line, at most

Words = str | Callable[[], str]

_speakers: list[object] = []  # the innermost last: only that one speaks
_last_line = [monotonic()]  # when a line was said last


@contextmanager
def progress_bar(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for `total` things, gone when done; yields what to call with each number done. For nothing to do, no bar."""
    console = open_console(stderr=True)
    if not total:
        yield lambda done: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=_terminal(), transient=True) as progress:
            task = progress.add_task(words, total=total)
            yield lambda done: progress.advance(task, done)
    else:
        so_far = [0]

        def advance(done: int) -> None:
            so_far[0] += done

        with _saying(console, lambda: f"{words}: {so_far[0]:,} of {total:,}"):
            yield advance


@contextmanager
def waiting(words: Words) -> Iterator[None]:
    """Say what takes a while and cannot be counted, on stderr.

    Args:
        words: what is waited for; or a function that says how far it is, for something that prints lines of its own meanwhile.
    """
    console = open_console(stderr=True)
    if callable(words):
        with _saying(console, words):
            yield
    elif console.is_terminal:
        with _terminal().status(words):
            yield
    else:
        with _saying(console, lambda: f"{words} ...", at_once=True):
            yield


@cache
def _terminal() -> Console:
    """One console for all: rich nests what moves on one console, and mixes up what moves on two."""
    return open_console(stderr=True)


@contextmanager
def _saying(console: Console, say: Callable[[], str], *, at_once: bool = False) -> Iterator[None]:
    """A line of what `say` tells every `SILENCE` seconds, and one at once where it is asked for."""
    began, done, us = monotonic(), Event(), object()

    def speak(words: str) -> None:
        # A command that ends after its terminal, or the file behind stderr, is gone must not fail here.
        with suppress(OSError, ValueError):
            console.print(words, soft_wrap=True)
        _last_line[0] = monotonic()

    def keep_saying() -> None:
        while not done.wait(max(0.1, _last_line[0] + SILENCE - monotonic())):
            if _speakers[-1:] == [us] and monotonic() - _last_line[0] >= SILENCE:
                speak(f"{say()} ({monotonic() - began:.0f} s)")

    if at_once:
        speak(say())
    _speakers.append(us)
    thread = Thread(target=keep_saying, name="saying what takes a while", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _speakers.remove(us)
