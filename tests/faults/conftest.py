"""What the tests of faults share."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.commands import Command, start


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The folder in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(here) -> Iterator[Callable[..., Command]]:
    """Start `python -m <words>` here; whatever the test leaves of it is killed."""
    started = []

    def start_here(*words: str | Path, **more) -> Command:
        started.append(start(here, *words, **more))
        return started[-1]

    yield start_here
    for each in started:
        each.kill()


@dataclass(frozen=True)
class Words:
    """Of a search."""

    first: tuple[str | Path, ...]  # of the command that begins it
    always: tuple[str | Path, ...]  # of those that go on with it, too


@pytest.fixture(scope="session")
def one_at_a_time(tiny_space, demo) -> Words:
    """A search that is the same whenever it is made: its trials, on all cores, see the same trials before them."""
    # Every third or so runs to its end, so early scores are compared with last ones, and there are more models than are kept.
    size = ("--trials", "6", "--keep-running", "0.4", "--keep", "2", "--set", "run/epochs=8", "--set", "run/grace=2")
    return Words(("--space", tiny_space, "--data", demo, "--seed", "3", *size), ("--cpus-per-trial", str(os.cpu_count())))


@pytest.fixture(scope="session")
def unharmed(one_at_a_time, tmp_path_factory) -> Path:
    """The run that such a search leaves when nothing happens to it."""
    folder = tmp_path_factory.mktemp("unharmed")
    command = start(folder, "tuner.run", "--name", "night", *one_at_a_time.first, *one_at_a_time.always, "--no-dashboard")
    code, words = command.end()
    assert code == 0, words
    return folder / "runs" / "night"
