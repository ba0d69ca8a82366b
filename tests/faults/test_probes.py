"""kill -9 while a search probes loses nothing: it resumes with the probes that are missing, and makes the same of them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analysis.evaluation.search.probes import probes_of
from tests.faults.commands import processes_with, start, wait_for
from tests.faults.remains import remains
from trainables.record import read_records, read_result, trial_folder

pytestmark = [
    pytest.mark.faults,
    pytest.mark.nightly,
    pytest.mark.skipif(torch.cuda.is_available(), reason="only a CPU promises the same bits"),
]

PROBES = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def words(probed_space, demo) -> tuple[tuple, tuple]:
    """Of the command that begins the run, and of every command: one trial at a time, so that what is proposed depends on no clock."""
    return ("--space", probed_space, "--data", demo, "--seed", "3"), ("--cpus-per-trial", str(os.cpu_count()), "--no-dashboard")


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> Path:
    """The run that such a search leaves when nothing happens to it."""
    folder = tmp_path_factory.mktemp("whole")
    first, always = words
    code, said = start(folder, "tuner.run", "--name", "night", *first, *always).end()
    assert code == 0, said
    return folder / "runs" / "night"


def ended(run: Path) -> list[int]:
    """The probes that have ended."""
    found = {number: read_result(folder) for number in PROBES if (folder := trial_folder(run, number)).is_dir()}
    return [number for number, result in found.items() if result and result.state == "finished"]


def rows(run: Path) -> int:
    """How many lines the table of probes has."""
    return len(probes_of(run).rows)


# When the command dies, by what there is of the run.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the first one is at work": lambda run: (trial_folder(run, 1) / "result.json").is_file(),
    "the table has two": lambda run: rows(run) >= 4,
    "one has ended and the table may not know": lambda run: 3 in ended(run),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_search_that_is_killed_while_it_probes_ends_as_if_it_had_not_been(moment, command, here, words, whole):
    run, (first, always) = here / "runs" / "night", words
    killed = command("tuner.run", "--name", "night", *first, *always)
    killed.wait_for(lambda: MOMENTS[moment](run))
    killed.process.kill()
    killed.process.wait()
    files = [trial_folder(run, number) / "result.json" for number in ended(run)]
    before = [file.stat().st_ino for file in files]
    assert not (trial_folder(run, 0) / "reports.jsonl").exists(), "the search had begun: this proves nothing of probes"
    code, said = command("tuner.run", "--resume", "night", *always).end()
    assert code == 0, said
    wait_for(lambda: not processes_with(killed.marker), limit=180)
    assert [file.stat().st_ino for file in files] == before, "one that had ended was fitted again"
    assert [record.number for record in read_records(run)] == [record.number for record in read_records(whole)]
    assert remains(run) == remains(whole)
