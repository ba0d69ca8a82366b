"""The one progress bar of all commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainables.console import open_console


@contextmanager
def progress_bar(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for `total` things, gone when done; yields what to call with each number done. For nothing to do, no bar."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=open_console(stderr=True), transient=True, disable=not total) as progress:
        task = progress.add_task(words, total=total)
        yield lambda done: progress.advance(task, done)
