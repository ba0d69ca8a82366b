import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from search_spaces.read import shipped_spaces
from search_spaces.schema import SpaceError
from trainables.config import ConfigError
from trainables.data.photos import DataError
from trainables.data.synthetic import write_people
from trainables.record import LAST, RunError, read_predictions, read_records
from tuner.cluster import ClusterError
from tuner.run import run, seconds
from tuner.sweep import Options, sweep

MEASURED = {"seconds", "images_per_second", "peak_memory"}
app = typer.Typer()
app.command()(run)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """People without quirks, to spoil copies of."""
    return write_people(tmp_path_factory.mktemp("plain") / "people", people=60, seed=1, size=(36, 48), quirks=False)


@pytest.fixture
def spoiled(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "spoiled")


def searched(joined=None, **options) -> tuple[int, str]:
    """Exit code and words of a search in this process."""
    said = StringIO()
    return sweep(Options(**options), Console(file=said, width=200), joined), said.getvalue()


def refused(**options) -> str:
    """The one message of a search that the user has to mend; nothing may have been written."""
    with pytest.raises((SpaceError, ConfigError, DataError, RunError, ClusterError)) as caught:
        searched(**options)
    assert not Path("runs").exists()
    return str(caught.value)


def wait_for(condition: Callable[[], bool], limit: float = 120) -> None:
    end = monotonic() + limit
    while not condition():
        assert monotonic() < end, "waited in vain"
        sleep(0.02)


# Bad input


def test_a_data_folder_that_is_not_there_is_refused(here, tiny_space):
    assert refused(space=str(tiny_space), data=Path("nowhere")).startswith("nowhere: no such folder. Give --data the folder that holds")


def test_a_data_folder_without_its_table_is_refused(here, tiny_space, spoiled):
    (spoiled / "train" / "train.csv").unlink()
    assert "no train/train.csv in it" in refused(space=str(tiny_space), data=spoiled)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("gender,race,age", "gender,race,years", "column age is missing; it needs id, gender, age, path and has id, gender, race, years"),
        (",male,", ",man,", "gender is 'man'; write one of male, female."),
        (",Asian,", ",Asian,about ", "write whole years from 0 to 120."),
        ("_Asian_", "_Elvish_", "is not in"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused_with_what_is_wrong(here, tiny_space, spoiled, old, new, message):
    table = spoiled / "train" / "train.csv"
    table.write_text(table.read_text().replace(old, new))
    said = refused(space=str(tiny_space), data=spoiled)
    assert message in said and "train.csv" in said
    assert len(said.splitlines()) <= 21, "a long list is cut"


def test_two_photos_are_too_few(here, tiny_space, tmp_path):
    data = write_people(tmp_path / "one", people=1, seed=0, size=(36, 48))
    for photo in list((data / "train" / "images").rglob("*.jpg"))[2:]:
        photo.unlink()
    assert "fewer people than the 2 folds and the hold-out need (3)" in refused(space=str(tiny_space), data=data)


def test_a_class_with_fewer_people_than_folds_is_named_with_the_ways_out(here, tiny_space, plain):
    said = refused(space=str(tiny_space), data=plain, changes=("data/folds=9",))
    assert "fewer people than the 9 folds and the hold-out need (10)" in said
    assert "female, >=60: " in said and "--set data/folds=2" in said


@pytest.mark.parametrize(
    "change, message",
    [
        ("loss/gama=2", "--set: loss/gama: is not a setting; did you mean loss/gamma"),
        ("loss/gamma={float: [3.0, 0.5]}", "--set: loss/gamma: low 3.0 is above high 0.5; write [0.5, 3.0]."),
        (
            "loss/gamma={float: [0.5, 3.0], when: {los/name: focal}}",
            "when names los/name, which is not in this space; did you mean loss/name?",
        ),
        ("loss/name=focall", "--set: loss/name: 'focall' does not exist; did you mean focal?"),
        ("optimizer/lr=1e-5", "--set: optimizer/lr: is the text '1e-5', not a number. YAML reads 1e-5 as text; write 1.0e-5."),
        ("model/backbone=resnet1888", "--set: model/backbone: timm has no 'resnet1888'"),
        ("task={choice: [joint, age]}", "scores over different attributes cannot be compared"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_before_anything_is_trained(here, tiny_space, plain, change, message):
    assert message in refused(space=str(tiny_space), data=plain, changes=(change,))


def test_an_unknown_space_is_refused_with_the_shipped_ones(here):
    said = refused(space="effnett")
    assert said.startswith("effnett is neither a file nor a shipped space; did you mean")
    assert all(name in said for name in shipped_spaces())


def test_a_name_that_is_taken_or_no_plain_name_is_refused(here, tiny_space, plain):
    for name in ("../elsewhere", "a/b", ".hidden", ""):
        assert "is no plain folder name" in refused(space=str(tiny_space), data=plain, name=name)
    Path("runs/mine").mkdir(parents=True)
    with pytest.raises(RunError, match="there is a run 'mine' already .*choose another --name"):
        searched(space=str(tiny_space), data=plain, name="mine")
    assert list(Path("runs/mine").iterdir()) == []


def test_photos_that_cannot_be_decoded_are_named_and_counted_and_stop_the_search_where_they_are_many(here, tiny_space, spoiled):
    photos = sorted((spoiled / "train" / "images").rglob("mask1.jpg"))
    for photo in photos[:2]:
        photo.write_bytes(b"no photo")
    code, said = searched(space=str(tiny_space), data=spoiled, dry_run=True)
    assert code == 0
    assert f"2 photos cannot be decoded: {photos[0].parent.name}/mask1.jpg" in said.replace("\n", " ")
    for photo in photos[:30]:
        photo.write_bytes(b"no photo")
    message = refused(space=str(tiny_space), data=spoiled)
    assert message.startswith("30 photos cannot be decoded: ") and "more than 5% of them" in message and "--allow-bad-photos" in message
    code, said = searched(space=str(tiny_space), data=spoiled, dry_run=True, allow_bad_photos=True)
    assert code == 0 and "30 photos cannot be decoded" in said and "390 photos of 60 people" in said


# The command line


def test_the_command_tells_a_mistake_once_and_ends_with_code_2(here, tiny_space):
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--data", "nowhere", "--dry-run"])
    assert result.exit_code == 2
    assert result.stderr.startswith("nowhere: no such folder.") and len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output
    assert list(here.iterdir()) == []


def test_the_command_tells_all_mistakes_of_a_space_one_a_line(here, tiny_space):
    changes = ("--set", "loss/gama=2", "--set", "run/trails=3", "--set", "optimizer/lr=1e-5")
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--dry-run", *changes])
    assert result.exit_code == 2
    assert sorted(line.split(": ")[1] for line in result.stderr.splitlines()) == ["loss/gama", "optimizer/lr", "run/trails"]


@pytest.mark.parametrize("text, expected", [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), (" 2d ", 172800)])
def test_a_time_budget_is_a_number_and_a_unit(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "-5m", "0", "1w", "5 minutes", "1e3", ""])
def test_a_time_budget_that_is_no_length_of_time_is_refused(here, tiny_space, text):
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--time-budget", text])
    assert result.exit_code == 2
    words = " ".join(result.output.replace("│", " ").split())
    assert "is no length of time; write 90s, 20m or 1.5h" in words
    assert list(here.iterdir()) == []


def test_a_dry_run_trains_a_step_of_each_kind_and_writes_nothing(here, tiny_space, plain):
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--data", str(plain), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "all sound. Nothing was written." in result.stdout
    assert list(here.iterdir()) == []


# Searches


def records_of(name: str) -> list[dict]:
    """What must be the same in two runs: all of the records but what a clock measured."""
    return [
        {
            "config": record.config.values(),
            "result": asdict(record.result),
            "reports": [{key: value for key, value in report.items() if key not in MEASURED} for report in record.reports],
            "predictions": [head.tobytes() for head in read_predictions(record.folder).heads],
            "model": record.has_model,
        }
        for record in read_records(Path("runs") / name)
    ]


def busy_workers() -> list[int]:
    """The processes of this Ray cluster that train a trial."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [line.split(maxsplit=2) for line in listed]
    raylets = {pid for pid, parent, _ in rows if parent == str(os.getpid())}
    return [int(pid) for pid, parent, words in rows if parent in raylets and words.startswith("ray::ImplicitFunc")]


def test_a_killed_trial_goes_on_after_its_last_whole_epoch_and_the_same_seed_gives_the_same_records(here, tiny_space, plain, ray_cluster):
    options = {"space": str(tiny_space), "data": plain, "trials": 4, "seed": 3, "cpus_per_trial": 2}
    changes = ("run/epochs=4", "run/keep=3", "train/batch_size=8")
    assert searched(ray_cluster, **options, name="whole", changes=changes)[0] == 0

    folder = here / "runs" / "killed" / "trials" / "0"
    killed = []

    def kill():
        wait_for(lambda: (folder / LAST).is_file() and len((folder / "reports.jsonl").read_text().splitlines()) >= 2)
        killed.extend(busy_workers())
        for worker in killed:
            os.kill(worker, signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    code, said = searched(ray_cluster, **options, name="killed", changes=changes)
    killer.join()
    assert code == 0 and len(killed) == 1, said
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2, "the trial was begun twice"
    whole, again = records_of("whole"), records_of("killed")
    assert len(whole) == 4 and {record["result"]["state"] for record in whole} == {"finished", "stopped"}
    assert whole == again


def test_a_trial_that_diverges_is_a_failed_one_and_the_search_goes_on(here, tiny_space, plain, ray_cluster):
    changes = ("run/epochs=1", "run/grace=1", "optimizer/name=sgd", "optimizer/lr=1.0e+30")
    code, said = searched(ray_cluster, space=str(tiny_space), data=plain, trials=2, cpus_per_trial=2, name="diverged", changes=changes)
    states = [record.result for record in read_records(Path("runs/diverged"))]
    assert code == 0
    assert [result.state for result in states] == ["failed", "failed"]
    assert all("at learning rate 1.0e+30" in result.reason for result in states)
    assert f"trial 0 failed: {states[0].reason}" in said and "2 trials: 2 failed" in said


def processes_with(marker: str) -> list[int]:
    """Every process that was started, directly or not, with this value in its environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return found


def test_ctrl_c_keeps_what_was_reported_and_leaves_no_process_and_a_second_run_ends_with_its_time_budget(
    here, tiny_space, plain, start_command, ray_cluster
):
    words = (
        "--space",
        tiny_space,
        "--data",
        plain,
        "--no-dashboard",
        "--name",
        "first",
        "--set",
        "run/epochs=1000",
        "--set",
        "run/grace=999",
    )
    marker = str(here / "marker")
    process = start_command(here, "tuner.run", *words, MARKER=marker)
    try:
        wait_for(lambda: len(list(here.glob("runs/first/trials/*/reports.jsonl"))) == 2)
        assert processes_with(marker)
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, out + errors
    assert "Traceback" not in out + errors
    assert "Best trials of first" in out and "Ended early by Ctrl-C; every epoch that was reported is kept." in out
    wait_for(lambda: not processes_with(marker), limit=20)
    records = read_records(here / "runs" / "first")
    assert len(records) == 2
    for record in records:
        assert (record.result.state, record.result.reason) == ("interrupted", "the search was ended by Ctrl-C")
        assert len(record.reports) >= 1 and record.best and record.has_model
        assert np.isfinite(read_predictions(record.folder).heads[0]).all()

    changes = ("run/epochs=1000", "run/grace=999")
    code, said = searched(ray_cluster, space=str(tiny_space), data=plain, name="second", time_budget=12.0, changes=changes)
    assert code == 0
    assert "Ended early by time budget" in said
    # A slow machine may not have begun to train within the budget.
    ends = {(record.result.state, record.result.reason) for record in read_records(here / "runs" / "second")}
    assert ends <= {("interrupted", "the search was ended by time budget")}
