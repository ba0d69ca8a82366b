"""Disks that fill up, cannot be written or are not there, an object store, and runs that were changed meanwhile."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from search_spaces.schema import SpaceError
from tests.conftest import already
from tests.faults.commands import searched, told, went_on
from tests.faults.disk import Disk
from tests.messages import missing
from tests.s3 import BUCKET, S3Server, s3_server
from trainables.data.images import DataError
from trainables.record import LAST, MODEL, Record, RunError, read_predictions, read_record, read_records
from trainables.storage import StorageError, open_folder
from tuner.callbacks import Driver
from tuner.cli import Options, TrialCount, carry_out
from tuner.cluster import Cluster
from tuner.demo.writing import write_people
from tuner.run import run as command_line
from tuner.searching import search

pytestmark = pytest.mark.faults

app = typer.Typer()
app.command()(command_line)

LONG = 12  # epochs of a trial that a command is to be interrupted in
SPACE = """
run:       {trials: 4, epochs: 4, grace: 4, keep: 4, finalists: 0}
data:      {holdout: 0.2, folds: 2}
view:      {size: 32}
model:     {backbone: test_efficientnet, weights: none}
loss:
  name:    {choice: [cross_entropy, focal]}
optimizer: {lr: {float: [1.0e-6, 1.0e-2], log: true}}
train:     {batch_size: 16}
"""
START = """
start:
  - {loss: {name: cross_entropy}, optimizer: {lr: 1.0e-2}}
  - {loss: {name: focal}, optimizer: {lr: 1.0e-2}}
  - {loss: {name: cross_entropy}, optimizer: {lr: 1.0e-3}}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("space") / "small.yaml"
    file.write_text(SPACE + START)
    return file


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """People without quirks, to spoil copies of."""
    return write_people(tmp_path_factory.mktemp("plain") / "people", people=60, seed=1, size=(36, 48), quirks=False)


# Disks


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture
def refused_by_the_disk(capsys) -> Iterator[Callable[..., tuple[int, str]]]:
    """Exit code and error of a command, in this process, that never gets to its trials."""
    handler = signal.getsignal(signal.SIGTERM)

    def refused(**options) -> tuple[int, str]:
        silent = Console(file=StringIO())
        with pytest.raises(SystemExit) as ended:
            carry_out(lambda start: search(Options(**options), silent, already(UNASKED)), silent, address=None, dashboard=False)
        return ended.value.code, capsys.readouterr().err

    yield refused
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.nightly
def test_a_full_disk_ends_the_search_softly_and_where_there_is_room_it_resumes_and_a_disk_that_cannot_be_written_is_refused(
    here, command, disk, space, plain, ray_cluster, refused_by_the_disk
):
    run, seen = disk.folder / "first", disk.seen / "first"
    words = ("--space", space, "--data", plain, "--storage", disk.folder, "--name", "first", "--trials", "1")
    words = (*words, "--set", f"run/epochs={LONG}", "--set", f"run/grace={LONG}", "--no-dashboard")
    process = command("tuner.run", *words, wrapped=disk.inside)
    process.wait_for(lambda: len(told(seen).get(0, ())) >= 2)
    disk.fill()
    code, words = process.end(limit=60)
    assert code == 1, words
    assert f"{run}: No space left on device" in words and f"--resume {run}" in words
    assert re.search(r"\d+ MB are enough", words)
    assert "Traceback" not in words
    before = told(seen)
    assert len(before[0]) >= 2 and not list(seen.rglob("*.partial"))

    disk.fill()
    code, words = refused_by_the_disk(resume=str(seen))
    assert code == 2 and re.search(f"^{seen}.*No space left on device", words, re.MULTILINE), words
    assert told(seen) == before

    roomy = Path(shutil.copytree(seen, here / "roomy" / "first"))
    code, words = searched(ray_cluster, resume=str(roomy))
    assert code == 0, words
    assert [(record.result.state, len(record.reports)) for record in read_records(roomy)] == [("finished", LONG)]
    assert went_on(before, told(roomy))

    disk.remount("ro")
    for options, folder in (({"resume": str(seen)}, seen), ({"space": str(space), "data": plain, "storage": str(disk.seen)}, disk.seen)):
        with pytest.raises((RunError, StorageError), match=f"^{folder}: Read-only file system"):
            searched(UNASKED, **options)


# Object stores


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.mark.parametrize(
    "address, said",
    [
        ("s3://bucket/runs?endpoint_override=http://127.0.0.1:1", "s3://bucket/runs: no server answers"),
        ("s3://no-such-bucket/runs", "s3://no-such-bucket/runs: there is no such bucket"),
    ],
)
def test_a_store_that_cannot_be_reached_is_refused(here, space, plain, server, monkeypatch, address, said):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    result = CliRunner().invoke(app, ["--space", str(space), "--data", str(plain), "--storage", address, "--dry-run"])
    assert result.exit_code == 2
    assert result.stderr.startswith(said) and "Traceback" not in result.output


@pytest.mark.nightly
def test_a_run_in_an_object_store_can_be_interrupted_resumed_and_vote(here, command, space, plain, server):
    run = f"s3://{BUCKET}/searches/first"
    store = open_folder(server.address_of(run))
    known = {"AWS_ENDPOINT_URL": server.endpoint}
    words = ("--space", space, "--data", plain, "--storage", f"s3://{BUCKET}/searches", "--name", "first", "--trials", "2")
    words = (*words, "--set", f"run/epochs={LONG}", "--set", f"run/grace={LONG}")
    process = command("tuner.run", *words, "--no-dashboard", **known)

    def reported() -> dict[int, list[str]]:
        files = {number: store / "trials" / str(number) / "reports.jsonl" for number in (0, 1)}
        return {number: file.read_text().splitlines() for number, file in files.items() if file.is_file()}

    process.wait_for(lambda: len(reported()) == 2)
    process.signal(signal.SIGTERM)
    code, words = process.end(limit=60)
    assert code == 143 and f"python -m tuner.run --resume {run}" in words, words
    before = reported()
    assert [(record.result.state, record.has_model) for record in read_records(store)] == [("interrupted", True)] * 2

    code, words = command("tuner.run", "--resume", run, "--no-dashboard", **known).end()
    assert code == 0, words
    assert f"python -m analysis.ensemble --top 2 --run {run}" in words
    assert went_on(before, reported())
    records = read_records(store)
    assert [(record.result.state, record.result.attempt, len(record.reports)) for record in records] == [("finished", 2, LONG)] * 2
    names = {entry.name for entry in store.iterdir()}
    assert names == {"baseline.json", "run.json", "space.yaml", "split.csv", "summary.json", "trials", "trials.parquet"}, (
        "as in a folder, but for ray.log and the lock"
    )
    for record in records:
        names = {entry.name for entry in record.folder.iterdir()}
        assert names == {record.config.model.backbone, "config.json", "reports.jsonl", "result.json", "valid.npz", MODEL}
        assert read_predictions(record.folder).epoch == record.result.best_epoch

    code, words = command("analysis.ensemble", "--top", "2", "--run", run, **known).end()
    assert code == 0, words
    assert {"scores.json", "confusion.png", "per_class.csv"} <= {entry.name for entry in (store / "ensemble").iterdir()}


# Runs that were changed meanwhile


@dataclass(frozen=True)
class Left:
    """A search that was broken off: trials 0 and 1 finished, trial 2 is in the middle."""

    run: Path

    def record(self, number: int) -> Record:
        return read_record(self.run / "trials" / str(number))


@pytest.fixture(scope="module")
def original(tmp_path_factory, space, plain, ray_cluster) -> Path:
    runs = tmp_path_factory.mktemp("original") / "runs"
    hear = Driver.on_trial_result

    def interrupt(driver: Driver, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        hear(driver, iteration, trials, trial, result, **info)
        if (result.get("number"), result.get("epoch")) == (2, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    options = {"space": str(space), "data": plain, "storage": str(runs), "name": "first", "trials": TrialCount(4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "on_trial_result", interrupt)
        code, said = searched(ray_cluster, **options)
    assert code == 143, said
    return runs / "first"


@pytest.fixture
def left(original, here) -> Left:
    """A copy to go on with."""
    return Left(Path(shutil.copytree(original, here / "runs" / "first")))


def states(run: Path) -> list[str]:
    return [record.result.state for record in read_records(run)]


UNASKED = Cluster(2, 0, None)  # whoever is refused has no use for it


def refused(left: Left, **options) -> str:
    """The one message that the user gets; nothing of the run may have been touched."""
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in left.run.rglob("*") if file.is_file() and file.name != ".lock"}
    with pytest.raises((SpaceError, DataError, RunError, StorageError)) as caught:
        searched(UNASKED, resume="first", **options)
    now = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in left.run.rglob("*") if file.is_file() and file.name != ".lock"}
    assert now == files
    return str(caught.value)


def test_what_was_left_is_a_search_in_the_middle(left):
    assert states(left.run) == ["finished", "finished", "interrupted"]
    assert 2 <= len(left.record(2).reports) < 4


def test_an_unknown_run_is_refused_with_the_runs_there_are(left):
    shutil.copytree(left.run, left.run.with_name("second"))
    result = CliRunner().invoke(app, ["--resume", "frist", "--dry-run"])
    assert result.exit_code == 2
    assert not missing(result.stderr, "'frist' in runs/", "first, second")


@pytest.mark.parametrize(
    "options, parts",
    [
        ({"changes": ("data/cuts=[30,50]",)}, ["data/cuts was []", "[30, 50]"]),
        ({"changes": ("data/folds=3",)}, ["data/folds was 2", "3"]),
        ({"seed": 1}, ["--seed is 1", "0"]),
        ({"seed": 1, "changes": ("data/folds=3",)}, ["--seed is 1", "data/folds was 2"]),
        ({"changes": ("task=age",)}, ["task: ", "mask, gender, age", "predict age"]),
        ({"name": "other"}, ["--name other "]),
        ({"changes": ("loss/nam=focal",)}, ["loss/nam: ", "cross_entropy"]),
    ],
)
def test_resuming_with_other_settings_is_refused_with_what_differs(left, options, parts):
    assert not missing(refused(left, **options), *parts)


def test_resuming_with_other_images_is_refused_with_what_differs(left, plain, tmp_path):
    spoiled = shutil.copytree(plain, tmp_path / "spoiled")
    images = sorted((spoiled / "train" / "images").rglob("mask1.jpg"))
    shutil.copy(images[1], images[0])
    name = images[0].relative_to(spoiled / "train" / "images")
    said = refused(left, data=spoiled)
    assert said.startswith(f"{spoiled}/train/images ") and f"content, 1: {name}\n" in said

    spoiled = shutil.copytree(plain, tmp_path / "relabelled")
    table = spoiled / "train" / "train.csv"
    lines = table.read_text().splitlines()
    lines[1] = lines[1].replace(",female,", ",male,") if ",female," in lines[1] else lines[1].replace(",male,", ",female,")
    table.write_text("\n".join(lines) + "\n")
    said = refused(left, data=spoiled)
    assert "class, 7: " in said and "content, " not in said

    images = sorted((shutil.copytree(plain, tmp_path / "fewer") / "train" / "images").rglob("mask2.jpg"))
    images[0].unlink()
    assert not missing(refused(left, data=tmp_path / "fewer"), "missing", ", 1: ")


def test_images_that_are_gone_are_missed_in_words(left):
    card = left.run / "run.json"
    card.write_text(card.read_text().replace('"data": "', '"data": "/nowhere'))
    assert "/nowhere" in refused(left) and "--data" in refused(left)


@pytest.mark.nightly
@pytest.mark.parametrize("choices, goes_on", [("[focal, soft_f1]", False), ("[cross_entropy, soft_f1]", True)])
def test_an_edited_space_is_what_new_trials_come_from_and_a_trial_without_a_place_in_it_stays(left, ray_cluster, choices, goes_on):
    edited = SPACE.replace("[cross_entropy, focal]", choices).replace("[1.0e-6, 1.0e-2]", "[1.0e-4, 1.0e-2]")
    Path("edited.yaml").write_text(edited)
    before, early = told(left.run), left.record(2)
    code, said = searched(ray_cluster, resume="first", space="edited.yaml")
    assert code == 0, said
    assert "2 trials are kept as they ended" in said
    assert ("1 are resumed: trial 2" in said) == goes_on
    assert ("1 stay interrupted, since they are not in the changed space: trial 2" in said) != goes_on
    assert states(left.run) == ["finished", "finished", "finished" if goes_on else "interrupted", "finished"]
    assert went_on(before, told(left.run))
    assert left.record(2).config == early.config
    config = left.record(3).config
    assert config.loss.name in choices and 1e-4 <= config.optimizer.lr <= 1e-2


@pytest.mark.nightly
def test_damaged_records_are_set_aside_by_name_and_their_trials_run_again(left, ray_cluster):
    configs = [left.record(number).config for number in range(3)]
    for number, name in enumerate(("result.json", "valid.npz", LAST)):
        file = left.run / "trials" / str(number) / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    shutil.rmtree(left.run / "damaged", ignore_errors=True)
    code, said = searched(ray_cluster, resume="first")
    assert code == 0, said
    for number in range(3):
        assert f"damaged, quarantined in damaged/ and trained again: trial {number} (" in said
    assert {folder.name for folder in (left.run / "damaged").iterdir()} == {"0", "1", "2"}
    assert [left.record(number).config for number in range(3)] == configs
    assert states(left.run) == ["finished"] * 4
    assert [left.record(number).result.attempt for number in range(4)] == [1, 1, 1, 1], "each began again"
