"""kill -9 in the middle of writing any file: afterwards there is the old one or the new one, and the work goes on to the same end."""

import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import nightly_after
from tests.faults.commands import Command
from tests.faults.faulty import MOMENTS, Fault, environment, exit_code, train_alone, train_armed
from tests.faults.remains import partials, remains
from trainables.record import list_trials, read_record, read_records, trial_folder
from trainables.trial import Job
from tuner.resume import verify

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(torch.cuda.is_available(), reason="only a CPU promises the same bits"),
]

EPOCHS = 3
TRIAL = {"epochs": EPOCHS, "model": {"dropout": 0.2}, "schedule": {"name": "plateau"}, "augment": {"flip": 0.5}}
# The processes of a trial write these; `last` is the write of the last epoch that has one.
WRITES = [
    ("config.json", 1),
    ("result.json", 1),
    ("result.json", EPOCHS),
    ("result.json", EPOCHS + 2),
    ("reports.jsonl", EPOCHS),
    ("valid.npz", 1),
    ("valid.npz", "last"),
    ("model.safetensors", 1),
    ("model.safetensors", "last"),
    ("last/state.pt", 1),
    ("last/state.pt", EPOCHS - 1),
]
# Every file is died in once, the moments in turn; on a push the first three.
ONCE = [(*write, MOMENTS[place % len(MOMENTS)]) for place, write in enumerate(dict(reversed(WRITES)).items())]
DEATHS = ONCE + [death for write in WRITES for moment in MOMENTS if (death := (*write, moment)) not in ONCE]


# What a trial's process writes


@pytest.fixture(scope="module")
def values(make_config) -> dict:
    return make_config(**TRIAL).values()


@pytest.fixture(scope="module")
def job(data, tmp_path_factory) -> Job:
    return Job(tmp_path_factory.mktemp("writes") / "run", data, "0.1+test", threads=1)


@pytest.fixture(scope="module")
def whole(values, job) -> Path:
    """The record of a trial that nothing happened to."""
    assert exit_code(train_alone, 0, values, job) == 0
    return trial_folder(job.run, 0)


@pytest.fixture
def number(job) -> int:
    """Of a trial that has no record yet."""
    return len(list(job.run.glob("trials/*"))) + 1


@pytest.mark.parametrize("file, write, moment", nightly_after(3, DEATHS))
def test_a_trial_that_dies_while_it_writes_a_file_resumes_to_the_same_record(whole, values, job, number, file, write, moment):
    if write == "last":
        write = sum(report["epoch"] == report["best_epoch"] for report in read_record(whole).reports)
    assert exit_code(train_armed, Fault(f"/{file}", moment, write), number, values, job) == -signal.SIGKILL
    folder = trial_folder(job.run, number)
    assert_usable(folder, whole)
    assert len(partials(folder)) == (moment != "renamed")

    assert exit_code(train_alone, number, values, job) == 0
    assert remains(folder) == remains(whole)


def assert_usable(folder: Path, whole: Path) -> None:
    """A record of a trial whose process died is as good as it goes, and its reports are the first ones of a whole one."""
    if (folder / "config.json").is_file():
        verify(read_record(folder))
        reports = remains(folder).get("reports.jsonl", [])
        assert reports == remains(whole)["reports.jsonl"][: len(reports)]


@pytest.mark.parametrize("record", nightly_after(1, [6, 1, 3, 20]))
def test_a_trial_that_dies_while_it_draws_its_curves_has_every_epoch_in_them_all_the_same(whole, values, job, number, record):
    assert exit_code(train_armed, record, number, values, job) == -signal.SIGKILL
    assert exit_code(train_alone, number, values, job) == 0
    folder = trial_folder(job.run, number)
    assert remains(folder) == remains(whole)
    curves = EventAccumulator(str(folder / values["model"]["backbone"])).Reload()
    for tag, name in (("f1_macro", "score"), ("train_loss", "train_loss")):
        drawn = {event.step: event.value for event in curves.Scalars(tag)}
        told = {report["epoch"]: report[name] for report in read_record(whole).reports}
        assert drawn == pytest.approx(told, rel=1e-6)


# What the command writes

STOPPED = '"state": "stopped"'
# In the order in which a search comes to them; each is met by the command that goes on after the last one's death.
DEATHS = [
    Fault("/split.csv", "half"),
    Fault("/run.json", "renamed"),
    Fault("/rungs.json", "half"),
    Fault("/fidelity.json", "beside"),
    Fault("/rungs.json", "renamed", holding='"passed": false'),
    Fault("/result.json", "renamed", holding=STOPPED),
]


@pytest.mark.nightly
def test_a_command_that_dies_while_it_writes_its_files_resumes_to_the_same_run(command, here, one_at_a_time, unharmed):
    run = here / "runs" / unharmed.name
    for fault in DEATHS:
        died = go_on(command, run, one_at_a_time, **environment(fault, here / "faulty"))
        assert died.process.wait(timeout=300) == -signal.SIGKILL, f"{fault} was not met:\n{died.words}"
        for folder in list_trials(run):
            verify(read_record(folder))
    code, words = go_on(command, run, one_at_a_time).end()
    assert code == 0, words
    assert remains(run) == remains(unharmed)
    assert {record.result.state for record in read_records(run)} == {"finished", "stopped"}


def go_on(command, run: Path, search, **more: str) -> Command:
    """Go on with the run; begin it again under its name where its command died before there was one."""
    words = ("--resume", run.name) if (run / "run.json").is_file() else ("--name", run.name, *search.first)
    return command("tuner.run", *words, *search.always, "--no-dashboard", **more)
