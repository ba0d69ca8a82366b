"""The folder of a new run: named, made and held in one go, so that two commands at once never take the same."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from trainables.record import RunError
from trainables.storage import Folder, reach, remove_tree
from tuner.lock import LOCK, hold


def numbered(stem: str, first: str) -> Iterator[str]:
    """Names without an end: the first one, then the stem with 2, 3, ... behind it."""
    yield first
    yield from (f"{stem}-{number}" for number in count(2))


def choose_folder(runs: Folder, wanted: str | None, names: Iterable[str]) -> Folder:
    """The folder that a new run will have below `runs`, which can be written to.

    Args:
        wanted: its name; None takes the first of `names` that is free.
    Raises: RunError for a name that is taken or is no plain folder name, StorageError.
    """
    if wanted is not None and (not wanted or Path(wanted).name != wanted or wanted.startswith(".")):
        raise RunError(f"--name {wanted!r} is not a plain folder name; write letters, digits and dashes")
    reach(runs)
    if wanted is None:
        return next(folder for name in names if not (folder := runs / name).exists())
    if (runs / wanted).exists():
        _refuse_taken(runs / wanted)
    return runs / wanted


@contextmanager
def claim(runs: Folder, wanted: str | None, names: Iterable[str]) -> Iterator[Folder]:
    """The folder of a new run, made and kept from others until the end of the block; it goes again unless it has become a run.

    Args:
        wanted: its name; None takes the first of `names` that is free, and the next where another command is quicker.
    Raises: RunError for a name that is taken or is no plain folder name, StorageError.
    """
    with ExitStack() as stack:
        run = _taken(stack, runs, wanted, names)
        try:
            yield run
        finally:
            if all(entry.name == LOCK for entry in run.iterdir()):
                remove_tree(run)


def _taken(stack: ExitStack, runs: Folder, wanted: str | None, names: Iterable[str]) -> Folder:
    names = iter(names)
    while True:
        run = choose_folder(runs, wanted, names)
        try:
            run.mkdir(parents=True, exist_ok=wanted is not None)
            stack.enter_context(hold(run))
            _refuse_taken(run)
            return run
        except FileExistsError:
            continue
        except RunError:
            # In an object store a folder is there when its lock is, and another command's may have come first.
            if wanted is not None or isinstance(run, Path):
                raise


def _refuse_taken(run: Folder) -> None:
    """Raises: RunError for a folder that is there already; one whose command died before it was a run may be used."""
    if not (run / LOCK).is_file() or any((run / name).exists() for name in ("run.json", "trials")):
        raise RunError(f"there is a run {run.name!r} already ({run}); choose another --name, go on with it: --resume, or remove it")
