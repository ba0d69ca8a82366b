"""How a search stands at this moment, for whoever watches it: what no record says, in live.json while trials run."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, time

from pydantic import TypeAdapter

from trainables.record import DAMAGE
from trainables.storage import Folder, StorageError, write_atomically

LIVE = "live.json"
EVERY = 2.0  # seconds between two writes
EVERY_IN_STORE = 10.0  # likewise in an object store, where each costs something


@dataclass(frozen=True)
class Running:
    """A trial that runs."""

    trial: int
    epoch: int  # the last whole one
    place: str  # machine and process; empty before its first report
    since: float  # when it started in this command, in seconds since 1970


@dataclass(frozen=True)
class Moment:
    """A search at a moment."""

    running: tuple[Running, ...] = ()
    seconds_left: float | None = None  # an estimate; None before there is one
    words: str = ""  # how far the search is, in a line
    notes: tuple[str, ...] = ()
    at: float = 0.0  # when it was so, in seconds since 1970


MOMENT = TypeAdapter(Moment)


class Pulse:
    """Writes how a search stands, as often as anybody needs it."""

    def __init__(self, run: Folder):
        self._file = run / LIVE
        self._every = EVERY if isinstance(run, Path) else EVERY_IN_STORE
        self._written = -self._every

    def show(self, moment: Callable[[], Moment]) -> None:
        """Write it, unless that was done just now. Raises: OSError where nothing can be written."""
        if monotonic() - self._written < self._every:
            return
        self._written = monotonic()
        # A store that fails for a moment is written to the next time.
        with suppress(StorageError):
            write_atomically(self._file, json.dumps({**asdict(moment()), "at": time()}).encode())

    def end(self) -> None:
        """Remove it: nothing runs any more."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def read_live(run: Folder) -> Moment | None:
    """How the search of a run stood at its last write; None where none has written since the last one ended."""
    with suppress(*DAMAGE):
        return MOMENT.validate_json((run / LIVE).read_bytes())
    return None


def running(run: Folder) -> list[int]:
    """The trials that run, by number."""
    moment = read_live(run)
    return sorted(one.trial for one in moment.running) if moment else []
