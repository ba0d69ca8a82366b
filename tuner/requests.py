"""What people and programs ask of a run while it is searched: small files in its folder, from whatever machine they come.

runs/<run>/requests/<time>-<random>.json   one request

A request lies there until the records show what came of it, so a crash loses none: a configuration that is to be tried until its trial
has a record, beside which the request then lies; the others until their trial has ended. A search looks for new ones every second.
"""

import getpass
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, Literal
from uuid import uuid4

from pydantic import TypeAdapter

from search_spaces.errors import UserError
from search_spaces.read import not_drawn, read_configuration
from search_spaces.schema import Space, SpaceError
from trainables.commands import typed
from trainables.config import TrialConfig
from trainables.record import DAMAGE, RUNS, RunCard, RunError, find_run, list_folders, list_trials, name_of, read_config, trial_folder
from trainables.registry import ConfigError
from trainables.storage import Folder, StorageError, open_folder, write_atomically
from tuner.live import running
from tuner.lock import holder
from tuner.runs import open_earlier, refuse_refit

FOLDER = "requests"
OF_A_TRIAL = "request.json"  # in a trial's folder: who asked for it, and when
EVERY = 1.0  # seconds between two looks
EVERY_IN_STORE = 10.0  # likewise in an object store, where each costs something
STOPPED = 143  # exit code of a search that a request stops; SIGTERM's, which does the same

Kind = Literal["enqueue", "stop", "spare"]


@dataclass(frozen=True)
class Request:
    """What somebody asks of a run."""

    kind: Kind  # try a configuration; stop a trial, or the search; do not prune a trial
    trial: int | None = None  # its number; of a configuration once it is tried
    values: Mapping[str, Any] | None = None  # of a configuration: searched values by path
    by: str = ""  # who asked, such as ann@host
    at: str = ""  # when, UTC

    @property
    def words(self) -> str:
        """Who asked, and when."""
        return f"a request of {self.by} at {self.at[:16].replace('T', ' ')} UTC" if self.by else "a request"


REQUEST = TypeAdapter(Request)


def ask(run: Folder, request: Request) -> Folder:
    """Put a request into a run's folder, signed and dated, and return its file."""
    signed = replace(request, by=request.by or who(), at=datetime.now(UTC).isoformat(timespec="seconds"))
    (run / FOLDER).mkdir(parents=True, exist_ok=True)
    file = run / FOLDER / f"{time_ns():020}-{uuid4().hex[:8]}.json"
    write_request(file, signed)
    return file


def write_request(file: Folder, request: Request) -> None:
    write_atomically(file, json.dumps(asdict(request)).encode())


def who() -> str:
    """The user and the machine that ask."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return socket.gethostname()


def pending(run: Folder) -> tuple[dict[Folder, Request], dict[Folder, str]]:
    """The requests that lie in a run by their file, oldest first, and why others cannot be read."""
    found: dict[Folder, Request] = {}
    damaged: dict[Folder, str] = {}
    for file in sorted(list_folders(run / FOLDER), key=lambda file: file.name):
        if not file.name.endswith(".json"):
            continue
        try:
            found[file] = REQUEST.validate_json(file.read_bytes())
        except FileNotFoundError:
            continue  # carried out meanwhile
        except StorageError:
            raise
        except DAMAGE as error:
            damaged[file] = str(error).splitlines()[0]
    return found, damaged


# The side of those who ask


def enqueue(name: str, settings: Sequence[str] | Mapping[str, Any], by: str = "") -> tuple[Folder, str]:
    """Ask that a configuration be tried next; returns the request's file and when it will be tried, in words.

    Args:
        name: of the run.
        settings: `section/field=value` texts, or values by path; what is left out is drawn.
    Raises: RunError, SpaceError with everything that the run's space cannot draw.
    """
    if (begun := _begun(name)) and not (begun / "run.json").is_file():
        raise RunError(f"{begun}: its search is still reading images, and nothing can be checked yet; enqueue once its trials run")
    earlier = open_earlier(name)
    refuse_refit(earlier.run, earlier.card)
    if earlier.space is None:
        raise RunError(f"{earlier.run}: its space.yaml is missing, so nothing can be checked; resume it with --space FILE first")
    values = read_configuration(earlier.space, settings)
    if mistakes := untrainable(earlier.space, values, {"epochs": earlier.card.epochs, "metric": earlier.card.metric}):
        raise SpaceError(mistakes)
    file = ask(earlier.run, Request("enqueue", values=values, by=by))
    return file, when_tried(earlier.run, earlier.card)


def untrainable(space: Space, values: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[str]:
    """Why no trial can be trained with these searched values, one mistake each."""
    from tuner.searchers.random import random_draws

    (whole,) = random_draws(replace(space, start=(dict(values),)), {"seed": 0, **fixed}, seed=0, count=1)
    try:
        TrialConfig.from_values(whole)
    except ConfigError as error:
        return [f"--set: {mistake}" for mistake in error.mistakes]
    return []


def when_tried(run: Folder, card: RunCard) -> str:
    """When a configuration that was just enqueued will be tried, in words."""
    taken = sum(not is_probe(folder) for folder in list_trials(run))
    waiting = sum(request.kind == "enqueue" and request.trial is None for request in pending(run)[0].values())
    resume = typed(f"tuner.run --resume {name_of(run)}")
    if (more := taken + waiting - card.trials) > 0:
        return f"all {card.trials} trials of {card.name} are begun or spoken for; it is tried with: {resume} --trials +{more}"
    if who_searches := holder(run):
        return f"the search that runs ({who_searches}) tries it next"
    return f"no search runs; it is tried first after: {resume}"


def is_probe(folder: Folder) -> bool:
    """Whether a trial is one of those before the search, which count beside the others."""
    try:
        return read_config(folder)[0].model.is_probe
    except DAMAGE:
        return False


def stop(name: str, trial: int | None = None, by: str = "") -> Folder:
    """Ask that a search be stopped softly, or one of its trials at its next report. Raises: RunError where it does not run."""
    return ask(_searched(name, trial), Request("stop", trial=trial, by=by))


def spare(name: str, trial: int, by: str = "") -> Folder:
    """Ask that a trial be pruned no more. Raises: RunError where it does not run."""
    return ask(_searched(name, trial), Request("spare", trial=trial, by=by))


def _searched(name: str, trial: int | None) -> Folder:
    begun = _begun(name)
    run = begun or find_run(name)
    if not begun and not holder(run):
        raise RunError(f"{run}: no search of it runs; resume it with: {typed(f'tuner.run --resume {name_of(run)}')}")
    if trial is not None:
        numbers = running(run)
        if trial not in numbers:
            known = f"running are {', '.join(map(str, numbers))}" if numbers else "none runs yet"
            state = "has ended, or waits" if (trial_folder(run, trial) / "config.json").is_file() else "does not exist"
            raise RunError(f"{run}: trial {trial} {state}; {known}")
    return run


def _begun(name: str) -> Folder | None:
    """The folder that a search on this machine holds; one whose images are still read is no run yet."""
    return next((folder for folder in (RUNS / name, open_folder(name)) if "://" not in name and holder(folder)), None)


# The side of the search


class Inbox:
    """The requests to a run, as the one command sees them that searches it."""

    def __init__(self, run: Folder, say: Callable[[str], None] = lambda words: None):
        """
        Args:
            say: called with what cannot be carried out, and why.
        """
        self.over: Callable[[int], bool] = lambda number: False  # whether a trial has ended, so that nothing is left to be done with it
        self._run, self._say = run, say
        self._every = EVERY if isinstance(run, Path) else EVERY_IN_STORE
        self._looked = -self._every
        self._pending: dict[Folder, Request] = {}
        self._refused: set[Folder] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles whoever asks it for a resume of its own, and ours reads what lies in the run."""
        return {}

    def look(self) -> None:
        """Read what lies there, unless the last look was just now, and put away what has been carried out."""
        if monotonic() - self._looked < self._every:
            return
        self._looked = monotonic()
        # A disk or a store that fails for a moment is asked again.
        with suppress(OSError, UserError):
            self._pending, damaged = pending(self._run)
            for file, why in damaged.items():
                self._refuse(file, f"cannot be read ({why})")
            self._put_away()

    def begin(self) -> None:
        """Before the first proposal: what an earlier command took, and left without a record of its trial, waits again."""
        self.look()
        for file, request in self._pending.items():
            if request.kind == "enqueue" and request.trial is not None and not self._has_record(request.trial):
                self._pending[file] = replace(request, trial=None)
                write_request(file, self._pending[file])

    def end(self) -> None:
        """After the last trial: put away what has been carried out."""
        self._looked = -self._every
        self.look()

    def stopped(self) -> str | None:
        """Who asks that the whole search end, in words, once; None: nobody."""
        self.look()
        for file, request in self._pending.items():
            if request.kind == "stop" and request.trial is None:
                self._drop(file)
                return request.words
        return None

    def why_stopped(self, number: int) -> str | None:
        """Why a trial should end at this report; None: nobody asks for it."""
        return next((f"stopped by {request.words}" for request in self._about(number, "stop")), None)

    def spares(self, number: int) -> bool:
        """Whether somebody asks that this trial is not pruned."""
        return bool(self._about(number, "spare"))

    def propose(self, number: int, space: Space, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """The searched values, by path, that are to be tried next, as the trial of this number; None where none wait.

        What the space, which may have changed, cannot draw any more is told and stays where it is.
        """
        self.look()
        for file, request in self._pending.items():
            if request.kind != "enqueue" or request.values is None or request.trial is not None or file in self._refused:
                continue
            if mistakes := not_drawn(space, request.values) or untrainable(space, request.values, fixed):
                self._refuse(file, f"does not fit the space: {'; '.join(mistakes)}")
                continue
            self._pending[file] = replace(request, trial=number)
            with suppress(OSError, UserError):
                write_request(file, self._pending[file])
            return dict(request.values)
        return None

    def _about(self, number: int, kind: Kind) -> list[Request]:
        return [request for request in self._pending.values() if request.trial == number and request.kind == kind]

    def _put_away(self) -> None:
        for file, request in list(self._pending.items()):
            if request.trial is None:
                continue
            if request.kind == "enqueue" and self._has_record(request.trial):
                write_request(trial_folder(self._run, request.trial) / OF_A_TRIAL, request)
                self._drop(file)
            elif request.kind != "enqueue" and self.over(request.trial):
                self._drop(file)

    def _has_record(self, number: int) -> bool:
        return (trial_folder(self._run, number) / "config.json").is_file()

    def _drop(self, file: Folder) -> None:
        self._pending = {other: request for other, request in self._pending.items() if other != file}
        with suppress(OSError, UserError):
            file.unlink(missing_ok=True)

    def _refuse(self, file: Folder, why: str) -> None:
        if file not in self._refused:
            self._refused.add(file)
            self._say(f"{file} {why}. Remove it, or correct it")


def forget_stops(run: Folder) -> None:
    """Remove what asks a search to stop that is none any more, before another begins."""
    for file, request in pending(run)[0].items():
        if request.kind == "stop" and request.trial is None:
            file.unlink(missing_ok=True)
