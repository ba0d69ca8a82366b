"""Searches as people start them, in processes of their own or in the tests' one, and what can be seen of them from outside."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from subprocess import STDOUT, Popen, TimeoutExpired
from time import monotonic, sleep
from typing import Any

from rich.console import Console

from tests.conftest import already
from tuner.cli import Options
from tuner.cluster import Cluster
from tuner.searching import search

ROOT = Path(__file__).parents[2]
MEASURED = {"seconds", "images_per_second", "peak_memory"}


def wait_for(condition: Callable[[], object], limit: float = 120) -> None:
    end = monotonic() + limit
    while not condition():
        assert monotonic() < end, "waited in vain"
        sleep(0.02)


def searched(joined: Cluster, **options) -> tuple[int, str]:
    """Exit code and words of a search in this process."""
    said = StringIO()
    return search(Options(**options), Console(file=said, width=200), already(joined)), said.getvalue()


@dataclass(frozen=True)
class Command:
    """`python -m ...` in a process group and session of its own, as a terminal starts it."""

    process: Popen
    output: Path  # what it says, errors too
    marker: str  # in the environment of every process that it starts

    @property
    def words(self) -> str:
        return self.output.read_text()

    def wait_for(self, condition: Callable[[], object], limit: float = 120) -> None:
        """Wait until something is so. Fails when the command ends before."""

        def ended() -> bool:
            return self.process.poll() is not None

        wait_for(lambda: condition() or ended(), limit)
        assert not ended(), self.words

    def signal(self, number: int) -> None:
        """Ctrl-C reaches the whole process group; a batch system's SIGTERM the command alone."""
        (os.killpg if number == signal.SIGINT else os.kill)(self.process.pid, number)

    def end(self, limit: float = 180) -> tuple[int, str]:
        """Exit code and words, once no process is left that it started."""
        try:
            code = self.process.wait(limit)
        except TimeoutExpired:
            raise AssertionError(f"it did not end within {limit:g} s:\n{self.words}") from None
        patience = monotonic() + 60
        while left := processes_with(self.marker):
            assert monotonic() < patience, f"still there: {[name_of(pid) for pid in left]}"
            sleep(0.05)
        return code, self.words

    def workers(self) -> list[int]:
        """Its processes that train trials."""
        return [pid for pid in processes_with(self.marker) if trains(pid)]

    def kill(self) -> None:
        """End it and all that it started, at once."""
        for pid in {self.process.pid, *processes_with(self.marker)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def start(folder: Path, *words: str | Path, wrapped: Iterable[str] = (), path: str = "", **environment: str) -> Command:
    """Start `python -m <words>` in a folder.

    Args:
        wrapped: a command that runs the command that follows it.
        path: a folder of modules that come before all others, in every process.
    """
    number = len(list(folder.glob("*.words")))
    output, marker = folder / f"{number}.words", f"STARTED_BY_THE_TEST={folder}/{number}"
    name, _, value = marker.partition("=")
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT)))), **environment, name: value}
    # A shell that starts the tests in the background lets their children ignore Ctrl-C.
    command = ["env", "--default-signal=INT", *wrapped, sys.executable, "-m", *map(str, words)]
    with output.open("w") as file:
        return Command(Popen(command, cwd=folder, env=settings, stdout=file, stderr=STDOUT, start_new_session=True), output, marker)


def processes_with(marker: str) -> list[int]:
    """Every process that has this `NAME=value` in its environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if marker.encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def name_of(pid: int) -> str:
    """What a process calls itself; nothing when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def trains(pid: int) -> bool:
    """Whether a process trains trials: between two epochs it has Ray's name, else that of the trial."""
    return name_of(pid).startswith(("ray::ImplicitFunc", "ray::trial "))


def told(run: Path) -> dict[int, list[str]]:
    """The lines of reports.jsonl of every trial that reported, by number."""
    return {int(file.parent.name): file.read_text().splitlines() for file in run.glob("trials/*/reports.jsonl")}


def went_on(before: dict[int, list[str]], after: dict[int, list[str]]) -> bool:
    """Whether nothing that was reported before was lost or changed, and no epoch is missing or there twice.

    A process that dies between reporting an epoch and keeping its state does that epoch again, with the same result but for clocks.
    """
    then, now = ({number: list(map(_unmeasured, lines)) for number, lines in some.items()} for some in (before, after))
    in_order = all([report["epoch"] for report in reports] == list(range(1, len(reports) + 1)) for reports in now.values())
    return in_order and all(now[number][: len(reports)] == reports for number, reports in then.items())


def _unmeasured(line: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(line).items() if name not in MEASURED}
