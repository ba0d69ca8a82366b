"""kill -9 of the command at any moment loses nothing: `--resume` ends the search as if nothing had happened."""

import json
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

import pytest
import torch

from tests.conftest import nightly_after
from tests.faults.commands import Command, processes_with, searched, told, wait_for
from tests.faults.faulty import FORKS, train_alone
from tests.faults.remains import remains, timeless, what_lasts
from trainables.record import Record, read_records, trial_folder
from trainables.trial import Job
from tuner.settings import RunSettings
from tuner.stoppers.history import History, TrialReport
from tuner.stoppers.pruner import never_stopped

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(torch.cuda.is_available(), reason="only a CPU promises the same bits"),
]

GRACE, REDUCTION, SPARED = 2, 1.5, 0.25
# Files of a record that nobody touches any more when its trial has ended.
SEALED = ("config.json", "reports.jsonl", "result.json", "rungs.json", "valid.npz")


@dataclass(frozen=True)
class Moment:
    """When a command is killed."""

    reports: int | None  # after so many reports of its trials; None: before they begin
    share: float  # and then this part of the start-up, or of a fifth of a second, which is about an epoch

    @classmethod
    def draw(cls, rng: random.Random, most: int) -> "Moment":
        """Every second one falls into the start-up, the others come after at most so many reports."""
        return cls(rng.randint(0, most) if rng.random() < 0.5 else None, rng.random())


class Killer:
    """Gives commands and kills them, with nothing but their start and their end in between."""

    def __init__(self, command: Callable[..., Command], run: Path, first: tuple, always: tuple):
        """
        Args:
            first, always: words of the command that begins the run; of every command.
        """
        self._command = command
        self._run = run
        self._first = first
        self._always = always
        self._startup = 8.0  # seconds until a trial begins, measured as soon as one has
        self.started: list[Command] = []

    def start(self) -> Command:
        known = (self._run / "run.json").is_file()
        words = ("--resume", self._run.name) if known else ("--name", self._run.name, *self._first)
        self.started.append(self._command("tuner.run", *words, *self._always, "--no-dashboard"))
        return self.started[-1]

    def kill_at(self, moment: Moment) -> None:
        """Begin or go on, and die at the moment."""
        begun, reported, now = attempts(self._run), reports(self._run), monotonic()
        command = self.start()
        if moment.reports is None:
            sleep(moment.share * self._startup)
        else:
            command.wait_for(lambda: attempts(self._run) > begun)
            self._startup = monotonic() - now
            command.wait_for(lambda: reports(self._run) >= reported + moment.reports)
            sleep(moment.share / 5)
        assert command.process.poll() is None, f"it ended before it was killed:\n{command.words}"
        command.process.kill()
        command.process.wait()
        print(f"{moment}, start-up {self._startup:.1f} s: {reports(self._run)} reports, {attempts(self._run)} attempts")


def attempts(run: Path) -> int:
    """Processes that worked on trials so far."""
    return sum(json.loads(file.read_text())["attempt"] for file in run.glob("trials/*/result.json"))


def reports(run: Path) -> int:
    return sum(map(len, told(run).values()))


@dataclass(frozen=True)
class Snapshot:
    """A trial as it lies on disk at a moment."""

    lines: list[str]  # of reports.jsonl
    seal: dict[str, tuple[int, int, bytes]] | None  # of a trial that has ended: inode, time and content of its files


def look(run: Path) -> dict[int, Snapshot]:
    found = {}
    for number, lines in told(run).items():
        folder = trial_folder(run, number)
        ended = json.loads((folder / "result.json").read_text())["state"] != "interrupted"
        found[number] = Snapshot(lines, dict(seals(folder)) if ended else None)
    return found


def seals(folder: Path) -> Iterator[tuple[str, tuple[int, int, bytes]]]:
    for file in (folder / name for name in SEALED if (folder / name).is_file()):
        status = file.stat()
        yield file.name, (status.st_ino, status.st_mtime_ns, file.read_bytes())


@pytest.mark.parametrize("kills, trials, epochs", nightly_after(1, [(1, 4, 6), (8, 8, 20)]))
def test_a_search_that_is_killed_again_and_again_ends_as_if_it_had_never_been(
    kills, trials, epochs, command, here, tiny_space, demo, data, ray_cluster, tmp_path
):
    seed = 47  # its first kill meets trials, its second the start-up
    rng = random.Random(seed)
    run = here / "runs" / "night"
    size = ("--trials", trials, "--keep-running", SPARED, "--keep", trials)
    lengths = {"epochs": epochs, "grace": GRACE, "reduction": REDUCTION}
    changes = [word for name, value in lengths.items() for word in ("--set", f"run/{name}={value}")]
    killer = Killer(command, run, ("--space", tiny_space, "--data", demo, *size, *changes), ())
    views = []
    for kill in range(1, kills + 1):
        print(f"seed {seed}, kill {kill}: ", end="")
        killer.kill_at(Moment.draw(rng, most=5))
        views.append(look(run))
    code, words = searched(ray_cluster, resume=run.name)
    assert code == 0, words

    records = read_records(run)
    assert [record.number for record in records] == list(range(trials))
    assert_the_table_names(words, records)
    assert any(record.result.attempt > 1 for record in records), "no trial was ever interrupted: this proves nothing"
    assert_nothing_was_lost([*views, look(run)])
    assert_asha_decided_as_if_at_one_go(records, epochs)
    assert_each_is_what_its_settings_give(records, Job(tmp_path / "again", data, "", threads=1))


def assert_the_table_names(words: str, records: list[Record]) -> None:
    table = words.partition("Best trials of night")[2]
    for record in records:
        assert re.search(rf"^ *{record.number} +{record.result.state} +{record.result.best_epoch} of ", table, re.MULTILINE), words
    assert f"{len(records)} trials: " in table


def assert_nothing_was_lost(views: list[dict[int, Snapshot]]) -> None:
    """From each view to the next, ended trials were let alone, and all others went on from their last epoch."""
    for before, after in pairwise(views):
        for number, seen in before.items():
            now = after[number]
            assert seen.seal is None or now.seal == seen.seal, f"trial {number} had ended"
            assert timeless(now.lines[: len(seen.lines)]) == timeless(seen.lines)
            # Clocks and all; but the last epoch is done again where the process died before it had kept its tensors.
            assert now.lines[: len(seen.lines) - 1] == seen.lines[:-1], f"trial {number} did epochs again"
    for seen in views[-1].values():
        assert [json.loads(line)["epoch"] for line in seen.lines] == list(range(1, len(seen.lines) + 1))


def assert_asha_decided_as_if_at_one_go(records: list[Record], epochs: int) -> None:
    """Every trial was evaluated once at every rung that it reached, in some order, as a fresh ASHA evaluates in that order."""
    fresh, spared = RunSettings(grace=GRACE, reduction=REDUCTION, epochs=epochs).stopper(), never_stopped(SPARED)
    history = History()
    for epoch in fresh.rungs:
        there = [record for record in records if len(record.reports) >= epoch]
        found = [(decision, record) for record in there for decision in record.decisions if decision.epoch == epoch]
        found.sort(key=lambda pair: pair[0].place)
        assert [decision.place for decision, _ in found] == list(range(len(there)))
        assert sorted(record.number for _, record in found) == [record.number for record in there]
        for decision, record in found:
            reported = TrialReport(record.number, epoch, record.reports[epoch - 1]["score"], last=False)
            assert decision == fresh.decide(history, reported)
            history.add(reported)
    for record in records:
        hopeless = [decision.epoch for decision in record.decisions if not decision.passed and not spared(record.number)]
        if hopeless:
            assert (record.result.state, hopeless) == ("stopped", [len(record.reports)])
        else:
            assert (record.result.state, len(record.reports)) == ("finished", epochs)
    assert {record.result.state for record in records} == {"finished", "stopped"}


def assert_each_is_what_its_settings_give(records: list[Record], job: Job) -> None:
    """Trained alone and at one go, each trial leaves the same bitwise."""
    assert {record.result.split for record in records} == {job.data.split.hash}
    with ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        trained = [pool.submit(train_alone, record.number, record.config.values(), job, len(record.reports)) for record in records]
        for each in trained:
            each.result()
    for record in records:
        again = trial_folder(job.run, record.number)
        for name in ("config.json", "reports.jsonl", "valid.npz", "model.safetensors"):
            assert what_lasts(record.folder / name) == what_lasts(again / name), f"trial {record.number}: {name}"


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [4])
def test_a_search_with_one_trial_at_a_time_leaves_the_same_files_whether_killed_or_not(command, here, one_at_a_time, unharmed, seed):
    rng = random.Random(seed)
    run = here / "runs" / unharmed.name
    killer = Killer(command, run, one_at_a_time.first, one_at_a_time.always)
    most = reports(unharmed) // 5
    for kill in range(1, 3):
        print(f"seed {seed}, kill {kill}: ", end="")
        killer.kill_at(Moment(rng.randint(0, most), rng.random()))
    code, words = killer.start().end()
    assert code == 0, words
    # Ray's servers end by themselves; its two agents take a minute or two to find out that they are alone.
    wait_for(lambda: not any(processes_with(each.marker) for each in killer.started), limit=180)
    assert attempts(run) > len(read_records(run)), "no trial was ever interrupted: this proves nothing"
    assert remains(run) == remains(unharmed)
