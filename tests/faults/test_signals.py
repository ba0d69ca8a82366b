"""Signals, budgets, killed processes, two commands at once, a wrong clock: nothing that was reported is lost, and the search goes on."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import pytest

from tests.conftest import nightly_after
from tests.faults.commands import MEASURED, Command, name_of, processes_with, searched, told, trains, wait_for, went_on
from trainables.record import LAST, read_predictions, read_records, read_run
from tuner.cli import TrialCount

pytestmark = pytest.mark.faults

EPOCHS = 12  # long enough to be interrupted, short enough to be trained to the end
LONG = ("--set", f"run/epochs={EPOCHS}", "--set", f"run/grace={EPOCHS}", "--trials", "2", "--no-dashboard")


@pytest.fixture
def search(command, tiny_space, demo) -> Callable[..., Command]:
    """Start a search of two long trials, named first."""

    def start(*words: str, **more) -> Command:
        return command("tuner.run", "--space", tiny_space, "--data", demo, "--name", "first", *LONG, *words, **more)

    return start


@pytest.fixture
def resumed(command) -> Callable[..., Command]:
    """Go on with the search."""
    return lambda *words, **more: command("tuner.run", "--resume", "first", "--no-dashboard", *words, **more)


def both_report(run: Path) -> bool:
    """Whether two trials have trained some epochs."""
    return sorted(len(lines) >= 3 for lines in told(run).values()) == [True, True]


def assert_all_are_trained(run: Path, before: dict[int, list[str]]) -> None:
    """Whether a search that was broken off was trained to its end, and each trial went on where it was."""
    records = read_records(run)
    assert [record.result.state for record in records] == ["finished", "finished"]
    assert [record.result.attempt for record in records] == [2, 2]
    assert [len(record.reports) for record in records] == [EPOCHS, EPOCHS]
    assert went_on(before, told(run))


@pytest.mark.parametrize("number, name, code", nightly_after(1, [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)]))
def test_a_signal_ends_a_search_softly_and_it_resumes_at_the_next_epoch(here, search, ray_cluster, number, name, code):
    run = here / "runs" / "first"
    process = search()
    process.wait_for(lambda: both_report(run))
    # Between two epochs Ray names a process for a moment.
    process.wait_for(
        lambda: sorted(name_of(pid).rstrip() for pid in process.workers()) == [f"ray::trial {n} test_efficientnet" for n in (0, 1)]
    )
    seen = told(run)
    process.signal(number)
    ended, words = process.end(limit=60)
    assert ended == code, words
    assert "Traceback" not in words
    assert "Best trials of first" in words and f"early by {name}" in words
    assert "python -m tuner.run --resume first" in words
    assert went_on(seen, told(run))
    for record in read_records(run):
        assert (record.result.state, record.result.reason) == ("interrupted", f"the search was ended by {name}")
        assert record.has_model and (record.folder / LAST).is_file()
        assert np.isfinite(read_predictions(record.folder).heads[0]).all()

    seen = told(run)
    ended, words = searched(ray_cluster, resume="first")
    assert ended == 0, words
    assert ", ".join(f"{number} (after epoch {len(lines)})" for number, lines in sorted(seen.items())) in words
    assert_all_are_trained(run, seen)


@pytest.mark.nightly
def test_of_two_commands_that_resume_at_once_one_is_refused(here, search, resumed):
    run = here / "runs" / "first"
    process = search()
    process.wait_for(lambda: both_report(run))
    process.signal(signal.SIGTERM)
    process.end(limit=60)
    seen = told(run)
    second, first = sorted((resumed(), resumed()), key=lambda process: -process.end()[0])
    assert second.end()[0] == 2, second.words
    assert f"process {first.process.pid} on " in second.words and "Traceback" not in second.words
    ended, words = first.end()
    assert ended == 0, words
    assert_all_are_trained(run, seen)


@pytest.mark.nightly
def test_a_second_ctrl_c_does_not_wait_for_a_trial_that_hangs_and_the_records_stay_whole(here, search, resumed):
    run = here / "runs" / "first"
    process = search()
    process.wait_for(lambda: both_report(run))
    for worker in process.workers():
        os.kill(worker, signal.SIGSTOP)
    seen = told(run)
    process.signal(signal.SIGINT)
    sleep(1)
    assert process.process.poll() is None, "the first one waits for the trials' next epoch"
    process.signal(signal.SIGINT)
    ended, words = process.end(limit=15)
    assert ended == 130, words
    assert "Stopped at once. Resume with: python -m tuner.run --resume first" in words and "Traceback" not in words
    assert [record.result.state for record in read_records(run)] == ["interrupted", "interrupted"]
    ended, words = resumed().end()
    assert ended == 0, words
    assert_all_are_trained(run, seen)


@pytest.mark.parametrize(
    "number, code, moment",
    nightly_after(
        1,
        [
            (signal.SIGINT, 130, "while the images are read"),
            (signal.SIGTERM, 143, "while Ray starts"),
            (signal.SIGINT, 130, "while Ray starts"),
            (signal.SIGTERM, 143, "while the images are read"),
        ],
    ),
)
def test_a_signal_before_the_first_trial_ends_the_command_and_nothing_is_written(here, search, number, code, moment):
    process = search()

    def come() -> bool:
        if moment == "while Ray starts":
            return any("gcs_server" in name_of(pid) for pid in processes_with(process.marker))
        return "trials of at most" in process.words

    process.wait_for(come)
    process.signal(number)
    ended, words = process.end(limit=60)
    assert ended == code, words
    assert "Traceback" not in words
    assert not list(here.glob("runs/*"))


@pytest.mark.nightly
def test_a_search_whose_processes_are_all_killed_resumes_though_the_clock_is_a_day_behind_since(here, search, resumed):
    """The clock stands for a node whose clock is wrong, or was set right meanwhile: nothing may be put in order by it."""
    run = here / "runs" / "first"
    process = search()
    process.wait_for(lambda: both_report(run))
    seen = told(run)
    for pid in [process.process.pid, *process.workers()]:
        os.kill(pid, signal.SIGKILL)
    assert process.process.wait(60) == -signal.SIGKILL
    # Ray's servers end by themselves; its two agents take a minute or two to find out that they are alone.
    wait_for(lambda: not process.workers())
    assert went_on(seen, told(run))

    (here / "behind").mkdir()
    (here / "behind" / "sitecustomize.py").write_text(
        "import os, time\n"
        "def behind(clock, day):\n"
        "    return lambda: clock() - day\n"
        "time.time, time.time_ns = behind(time.time, 86_400), behind(time.time_ns, 86_400 * 10**9)\n"
        "open(os.path.join(os.path.dirname(__file__), f'{os.getpid()}.seen'), 'w').close()\n"
    )
    seen = told(run)
    process = resumed(path=str(here / "behind"))
    process.wait_for(lambda: len(process.workers()) == 2)
    assert all((here / "behind" / f"{pid}.seen").is_file() for pid in [process.process.pid, *process.workers()])
    ended, words = process.end()
    assert ended == 0, words
    assert_all_are_trained(run, seen)


# In this process


@contextmanager
def meanwhile(act: Callable[[], None]):
    """Let something happen during the block, and see to it that it did."""
    failed = []

    def guarded() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def busy_workers() -> list[int]:
    """The processes of this process' Ray cluster that train a trial."""
    children = [int(file.parent.name) for file in Path("/proc").glob("[0-9]*/stat") if parent_of(file) in raylets()]
    return [pid for pid in children if trains(pid)]


def raylets() -> set[int]:
    return {int(file.parent.name) for file in Path("/proc").glob("[0-9]*/stat") if parent_of(file) == os.getpid()}


def parent_of(stat: Path) -> int:
    """The second number behind the name, which may hold anything; 0 when the process is gone."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill_workers(trial: Path, epochs: int) -> None:
    """Kill what trains, as soon as a trial can go on after so many epochs."""
    wait_for(lambda: (trial / LAST).is_file() and len(told(trial.parents[1]).get(int(trial.name), ())) >= epochs)
    workers = busy_workers()
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGKILL)


def records_of(run: Path) -> list[dict]:
    """What must be the same in two runs: all of the records but what a clock measured and who trained it."""
    return [
        {
            "config": record.config.values(),
            "result": {name: value for name, value in asdict(record.result).items() if name != "attempt"},
            "reports": [{key: value for key, value in report.items() if key not in MEASURED} for report in record.reports],
            "decisions": record.decisions,
            "predictions": [head.tobytes() for head in read_predictions(record.folder).heads],
            "model": record.has_model,
        }
        for record in read_records(run)
    ]


@pytest.mark.nightly
def test_a_trial_killed_twice_resumes_with_one_retry_as_it_got_on_and_the_same_seed_gives_the_same_records(
    here, tiny_space, demo, ray_cluster
):
    options = {"space": str(tiny_space), "data": demo, "trials": TrialCount(4), "seed": 3, "retries": 1}
    changes = ("run/epochs=8", "run/keep=3", "train/batch_size=8")
    assert searched(ray_cluster, **options, name="whole", changes=changes)[0] == 0
    killed = here / "runs" / "killed"

    def kill_twice() -> None:
        for epochs in (1, 4):
            kill_workers(killed / "trials" / "0", epochs)

    with meanwhile(kill_twice):
        code, said = searched(ray_cluster, **options, name="killed", changes=changes)
    assert code == 0, said
    assert [record.result.attempt for record in read_records(killed)] == [3, 1, 1, 1]
    whole, again = records_of(here / "runs" / "whole"), records_of(killed)
    assert len(whole) == 4 and {record["result"]["state"] for record in whole} == {"finished", "stopped"}
    assert whole == again


@pytest.mark.nightly
def test_without_retries_a_killed_trial_fails_and_resuming_tries_it_again_from_where_it_was(here, tiny_space, demo, ray_cluster):
    run = here / "runs" / "frail"
    options = {"data": demo}
    changes = ("run/epochs=30", "run/grace=30")
    with meanwhile(lambda: kill_workers(run / "trials" / "0", epochs=3)):
        code, said = searched(ray_cluster, space=str(tiny_space), trials=TrialCount(2), name="frail", changes=changes, retries=0, **options)
    frail, other = read_records(run)
    assert code == 0 and "2 trials: 1 finished, 1 failed" in said
    assert (frail.result.state, frail.result.cause, other.result.state) == ("failed", "crash", "finished")
    assert frail.result.reason in said
    assert 3 <= len(frail.reports) < 30 and (frail.folder / LAST).is_file()

    seen, files = told(run), {file: file.stat().st_mtime_ns for file in other.folder.iterdir()}
    code, said = searched(ray_cluster, resume="frail", retries=1, **options)
    assert code == 0, said
    assert f"1 are resumed: trial 0 (after epoch {len(frail.reports)})" in said
    frail, other = read_records(run)
    assert (frail.result.state, frail.result.cause, frail.result.attempt, len(frail.reports)) == ("finished", "", 2, 30)
    assert went_on(seen, told(run))
    assert {file: file.stat().st_mtime_ns for file in other.folder.iterdir()} == files


@pytest.mark.nightly
def test_a_time_budget_ends_a_search_in_order_and_each_command_has_its_own(here, tiny_space, demo, ray_cluster):
    run = here / "runs" / "slow"
    changes = ("run/epochs=1000", "run/grace=999")
    code, said = searched(ray_cluster, space=str(tiny_space), data=demo, name="slow", time_budget=3.0, changes=changes)
    assert code == 0
    assert "Stopped early by the time budget" in said
    assert "python -m tuner.run --resume slow" in said
    # A slow machine needs most of a budget to begin.
    for budget in (6.0, 20.0, 60.0):
        seen = told(run)
        code, said = searched(ray_cluster, resume="slow", data=demo, time_budget=budget)
        assert code == 0
        assert "Stopped early by the time budget" in said
        assert went_on(seen, told(run))
        if sum(map(len, told(run).values())) > sum(map(len, seen.values())):
            break
    else:
        raise AssertionError("a budget of a minute brought no epoch")
    ends = {(record.result.state, record.result.reason) for record in read_records(run)}
    assert ends <= {("interrupted", "the search was ended by the time budget"), ("interrupted", "ended before its first report")}


@pytest.mark.nightly
def test_more_trials_join_those_that_ended_and_these_are_not_touched(here, tiny_space, demo, ray_cluster):
    run = here / "runs" / "growing"
    changes = ("run/epochs=1", "run/grace=1")
    assert searched(ray_cluster, space=str(tiny_space), data=demo, name="growing", trials=TrialCount(2), changes=changes)[0] == 0
    files = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in run.glob("trials/*/*")}
    code, said = searched(ray_cluster, resume="growing", trials=TrialCount(2, more=True))
    assert code == 0, said
    assert "2 trials are kept as they ended" in said and "4 trials: 4 finished" in said
    assert read_run(run).trials == 4 and [record.number for record in read_records(run)] == [0, 1, 2, 3]
    # Of four trials the space keeps the weights of two.
    now = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()}
    assert now.items() <= files.items() and {file.name for file in files.keys() - now.keys()} <= {"model.safetensors"}
    code, said = searched(ray_cluster, resume="growing")
    assert code == 0 and "4 trials are kept as they ended" in said
    assert json.loads((run / "run.json").read_text())["trials"] == 4
