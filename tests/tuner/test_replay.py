import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from tests.conftest import nightly_after
from tests.messages import missing, mistaken
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.splits import NO_FOLD, split_table
from trainables.data.views import build_views
from trainables.metrics import DEFAULT, METRICS, Metric
from trainables.record import (
    SPLIT,
    Predictions,
    RunCard,
    end_record,
    read_predictions,
    read_record,
    start_record,
    trial_folder,
    write_json,
    write_predictions,
    write_reports,
    write_run,
)
from trainables.storage import write_atomically
from trainables.trial import Job, train
from trainables.validation import validation_interval
from trainables.versions import code_version
from tuner.comparison import COMPARED, LOSS, SCORE, Conditions, compare_best, unlike
from tuner.replay import main

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="only a CPU promises the same bits")

CODE = "1.0+test"
EVERYTHING = {
    "task": "heads",
    "epochs": 3,
    "normalize": "dataset",
    "augment": {"flip": 0.5, "rotate": 10.0, "brightness": 0.2, "contrast": 0.2, "erase": 0.3},
    "mix": {"name": "mixup", "prob": 0.7},
    "sampler": {"name": "weighted"},
    "model": {"dropout": 0.3},
    "loss": {"name": "focal"},
    "schedule": {"name": "plateau", "patience": 0, "factor": 0.5},
    "train": {"accumulate": 2, "clip": 1.0},
}
FINISHED, PLAIN, DIVERGED, UNBUILDABLE, INTERRUPTED, BARE, UNEVALUATED = range(7)

app = typer.Typer()
app.command()(main)


class Died(Exception):
    """What ends a trial from outside."""


@dataclass(frozen=True)
class Said:
    """How a replay ended, and its words with all white space made one blank."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def threads_of_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def known_code(monkeypatch):
    """A checkout that is being worked on has no version of its own."""
    monkeypatch.setattr("trainables.versions.code_version", lambda: CODE)


@pytest.fixture(scope="module")
def trained(demo, data, cache, make_config, tmp_path_factory) -> Path:
    """A run with a trial of every kind. Read it, do not change it."""
    run = tmp_path_factory.mktemp("trained") / "faces"
    digests = build_views(read_images(demo, DataConfig()), data.views, cache).digests
    attributes = tuple(attribute.plain() for attribute in data.images.scheme.targets)
    card = RunCard("faces", "tiny.yaml", str(demo), (30, 60), 0, data.split.hash, attributes, epochs=3, trials=7, command="")
    write_run(run, card)
    write_atomically(run / SPLIT, split_table(data.images, data.split, digests))
    job = Job(run, data, CODE, threads=1)
    diverging = make_config(optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"})
    before = torch.get_num_threads()
    train(FINISHED, make_config(**EVERYTHING), job, lambda report: None)
    train(PLAIN, make_config(), job, lambda report: None)
    train(DIVERGED, diverging, job, lambda report: None)
    everybody = replace(data, split=replace(data.split, fold=NO_FOLD))
    train(UNEVALUATED, make_config(data={"fold": NO_FOLD}), replace(job, data=everybody), lambda report: None)
    train(UNBUILDABLE, make_config(model={"backbone": "test_resnett"}), job, lambda report: None)

    def die(report: dict) -> None:
        if report["epoch"] == 2:
            raise Died

    with pytest.raises(Died):
        train(INTERRUPTED, make_config(epochs=4), job, die)
    start_record(trial_folder(run, BARE), make_config())
    torch.set_num_threads(before)
    return run


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    """A copy of the run, in runs/ of the folder in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "runs" / "faces")


@pytest.fixture
def moved(demo, tmp_path) -> Path:
    """A copy of the images in another folder."""
    return shutil.copytree(demo, tmp_path / "photos")


def call(*words: str | Path | int, run: str | Path = "faces") -> Said:
    result = CliRunner().invoke(app, ["--run", str(run), *map(str, words)])
    assert "Traceback" not in result.output and (result.exception is None or isinstance(result.exception, SystemExit))
    return Said(result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split()))


def replayed(trial: int, *words: str | Path | int, run: str | Path = "faces") -> Said:
    return call("--trial", trial, *words, run=run)


def change_report(run: Path, trial: int, epoch: int, **changes) -> dict:
    """Write another report of an epoch; the one it had comes back."""
    folder = trial_folder(run, trial)
    reports = [dict(report) for report in read_record(folder).reports]
    before = dict(reports[epoch - 1])
    reports[epoch - 1] |= changes
    write_reports(folder, reports)
    return before


def change_result(run: Path, trial: int, **changes) -> None:
    file = trial_folder(run, trial) / "result.json"
    write_json(file, json.loads(file.read_text()) | changes)


def another_torch(run: Path, trial: int) -> None:
    versions = json.loads((trial_folder(run, trial) / "result.json").read_text())["versions"]
    change_result(run, trial, versions=versions | {"torch": "1.13.1"})


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in files}


# The same again


def test_a_finished_trial_is_equal_bitwise_with_dataset_normalisation_and_everything_random(run):
    said = replayed(FINISHED)
    best = read_record(trial_folder(run, FINISHED)).result.best_epoch
    assert said.code == 0
    assert f"Bitwise identical: 3 epochs, the validation probabilities of epoch {best}." in said.out
    assert said.out.count(" identical ") == 3, "a row for each epoch says so"


def test_an_interrupted_trial_is_compared_as_far_as_it_came(run):
    said = replayed(INTERRUPTED)
    assert said.code == 0 and "Bitwise identical: 2 epochs" in said.out
    assert "interrupted after 2 epochs" in said.out


def test_a_trial_without_a_validation_score_is_compared_without_scores(run):
    said = replayed(UNEVALUATED)
    assert said.code == 0 and "Bitwise identical: 2 epochs" in said.out


def test_a_diverging_trial_diverges_again_in_the_same_words(run):
    said = replayed(DIVERGED)
    reason = read_record(trial_folder(run, DIVERGED)).result.reason
    assert said.code == 0 and f"Bitwise identical: the end ({reason})." in said.out


def test_a_trial_whose_settings_could_not_be_built_fails_again_in_the_same_words(run):
    said = replayed(UNBUILDABLE)
    assert said.code == 0
    assert not missing(said.out, "Bitwise identical: the end", "model/backbone", "'test_resnett'", "did you mean test_resnet")


def test_the_header_says_which_trial_it_is_and_what(run):
    change_result(run, PLAIN, notes=["out of GPU memory in epoch 1"])
    said = replayed(PLAIN, "--epochs", 1)
    assert said.out.startswith("Trial 1 of faces, runs/faces/trials/1: finished after 2 epochs, trained all 2 epochs")
    settings = ("test_efficientnet", "32x32 pixels", "cross_entropy", "adamw at 0.003", "batches of 32", "2 epochs", "seed 0")
    assert not missing(said.out, *settings, "out of GPU memory in epoch 1")


def test_a_run_is_found_by_its_path_and_by_its_address(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "runs" / "faces" / "trials")
    for name in (run, f"file://{run}"):
        assert replayed(PLAIN, "--epochs", 1, run=name).code == 0


@pytest.mark.parametrize("trial", nightly_after(1, [FINISHED, DIVERGED]), ids=["finished", "diverged"])
def test_a_fresh_process_trains_the_same_bits_without_ray(run, trial):
    change_result(run, trial, code=code_version())
    script = (
        "import sys\nfrom tuner import replay\nassert not {'ray', 'torch', 'timm', 'pandas'} & set(sys.modules)\n"
        f"sys.argv = ['replay', '--run', {str(run)!r}, '--trial', '{trial}']\n"
        "try:\n    replay.typer.run(replay.main)\nfinally:\n    assert 'torch' in sys.modules and 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Bitwise identical" in done.stdout


@pytest.mark.parametrize("changed", [False, True])
def test_nothing_of_the_run_is_changed(run, changed):
    if changed:
        change_report(run, PLAIN, 1, score=0.9)
    for trial in (PLAIN, DIVERGED, UNBUILDABLE, INTERRUPTED, BARE):
        before = contents(run)
        replayed(trial)
        assert contents(run) == before


def test_images_that_were_moved_and_a_table_that_was_sorted_again_give_the_same_bits(run, moved):
    table = moved / "train" / "train.csv"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows.iloc[::-1].to_csv(table, index=False)
    said = replayed(FINISHED, "--data", moved)
    assert said.code == 0 and "Bitwise identical: 3 epochs" in said.out


def test_an_earlier_end_can_be_asked_for_and_what_is_not_compared_is_shown(run):
    change_report(run, PLAIN, 2, score=0.9)
    write_predictions(trial_folder(run, PLAIN), replace(read_predictions(trial_folder(run, PLAIN)), epoch=2))
    said = replayed(PLAIN, "--epochs", 1)
    assert said.code == 0 and "Bitwise identical: 1 epochs." in said.out
    assert not missing(said.out, "Epochs after 1", "validation probabilities are of epoch 2")
    assert replayed(PLAIN, "--epochs", 2).code == 1


def test_more_epochs_than_were_reported_are_not_trained(run):
    said = replayed(PLAIN, "--epochs", 9)
    assert said.code == 0 and "Bitwise identical: 2 epochs" in said.out and "Epochs after" not in said.out


# Not the same again


@pytest.mark.parametrize("name", COMPARED)
def test_the_smallest_change_of_whatever_is_compared_is_named_with_its_epoch(run, name):
    report = read_record(trial_folder(run, PLAIN)).reports[1]
    value = report[name]
    if name == "target_scores":
        attribute = next(iter(value))
        other, name = value | {attribute: float(np.nextafter(value[attribute], 2))}, f"{name}/{attribute}"
    else:
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else float(np.nextafter(value, 2))
    change_report(run, PLAIN, 2, **{name.split("/")[0]: other})
    said = replayed(PLAIN)
    assert said.code == 1
    assert f"Not identical: epoch 2: {name} " in said.out and "must give the same bits" in said.out
    assert said.out.count(" identical ") == 1, "the other epoch is"


@pytest.mark.parametrize("name", ["seconds", "images_per_second", "peak_memory"])
def test_the_speed_and_memory_of_the_machine_are_not_compared(run, name):
    change_report(run, PLAIN, 1, **{name: 1e9})
    assert replayed(PLAIN).code == 0


def test_changed_probabilities_are_named_with_the_largest_difference(run):
    folder = trial_folder(run, PLAIN)
    kept = read_predictions(folder)
    kept.heads[0][3, 4] += 0.25
    write_predictions(folder, kept)
    said = replayed(PLAIN)
    assert said.code == 1 and f"Not identical: epoch {kept.epoch}: validation probabilities by up to 2.5e-01" in said.out


def test_probabilities_of_other_images_are_no_probabilities_to_compare(run):
    folder = trial_folder(run, PLAIN)
    kept = read_predictions(folder)
    write_predictions(folder, Predictions(kept.ids[::-1], kept.heads, kept.epoch))
    another_torch(run, PLAIN)
    said = replayed(PLAIN)
    assert said.code == 1 and "valid.npz" in said.out


def test_a_failure_that_does_not_come_again_is_a_difference(run):
    end_record(trial_folder(run, INTERRUPTED), "failed", "the loss is nan in epoch 3", "diverged")
    said = replayed(INTERRUPTED)
    assert said.code == 1 and "then the loss is nan in epoch 3" in said.out
    assert replayed(INTERRUPTED, "--epochs", 2).code == 0


def test_a_failure_in_other_words_is_a_difference_and_tolerable_where_the_same_bits_cannot_be_asked_for(run):
    end_record(trial_folder(run, DIVERGED), "failed", "the loss is inf in epoch 1", "diverged")
    said = replayed(DIVERGED)
    assert said.code == 1 and not missing(said.out, "then the loss is inf in epoch 1", "now the loss is nan in epoch 1")
    another_torch(run, DIVERGED)
    assert replayed(DIVERGED).code == 0


def test_a_failure_where_there_was_none_is_a_difference(run):
    file = trial_folder(run, PLAIN) / "config.json"
    values = json.loads(file.read_text())
    write_json(file, values | {"optimizer": values["optimizer"] | {"name": "sgd", "lr": 1e30}})
    another_torch(run, PLAIN)
    said = replayed(PLAIN)
    assert said.code == 1 and "now the loss is nan in epoch 1" in said.out


# Where the same bits cannot be asked for


def test_other_versions_are_named_and_equal_bits_are_equal_all_the_same(run):
    another_torch(run, PLAIN)
    change_result(run, PLAIN, code="0.9", device="CPU (Abacus, AVX2)")
    said = replayed(PLAIN)
    assert said.code == 0 and "Bitwise identical" in said.out
    for words in (
        f"torch: 1.13.1 then, {torch.__version__.split('+')[0]} now",
        f"code: 0.9 then, {CODE} now",
        "CPU (Abacus, AVX2) then,",
    ):
        assert words in said.out


@pytest.mark.parametrize("share, code", [(0.9, 0), (1.1, 1), (-0.9, 0), (-1.1, 1)])
def test_with_other_versions_the_best_macro_f1_may_drift_by_half_its_interval(run, data, share, code):
    another_torch(run, PLAIN)
    record = read_record(trial_folder(run, PLAIN))
    low, high = validation_interval(record.config, read_predictions(record.folder), data.images, data.split)
    tolerance = max(SCORE, (high - low) / 2)
    now = record.best["score"]
    for epoch in (1, 2):
        then = now + share * tolerance if epoch == record.result.best_epoch else -10.0
        change_report(run, PLAIN, epoch, score=then)
    said = replayed(PLAIN)
    assert said.code == code
    assert not missing(said.out, f"macro F1 within {tolerance:.3f}", "train losses within 10%", "(torch)")
    if code:
        epoch = record.result.best_epoch
        scores = f"{now + share * tolerance:.4f} (epoch {epoch})", f"{now:.4f}"
        assert not missing(said.out, f"Not within tolerance: epoch {epoch}: ", *scores)
    else:
        assert "Within tolerance: 2 epochs" in said.out


F1 = METRICS[DEFAULT]


def test_where_many_people_validate_the_best_macro_f1_may_drift_by_a_fixed_number():
    then, now = ([{"epoch": 1, "score": 0.5}], [{"epoch": 1, "score": 0.5 + 1.1 * SCORE}])
    assert [finding.tolerable for finding in compare_best(then, now, SCORE, F1)] == [False]
    assert list(compare_best(then, now, 2 * SCORE, F1)) == list(compare_best([], now, SCORE, F1)) == []


def test_the_best_score_of_a_metric_to_minimize_is_the_lowest():
    error = Metric("error", "error rate", direction="minimize")
    then, now = ([{"epoch": epoch, "score": score} for epoch, score in enumerate(scores, 1)] for scores in ([0.9, 0.1], [0.1, 0.9]))
    assert list(compare_best(then, now, SCORE, error)) == []
    assert [finding.epoch for finding in compare_best(then, [{"epoch": 1, "score": 0.2}], SCORE, error)] == [1]


@pytest.mark.parametrize("name, change", [("accuracy", 0.1), ("best_epoch", 1), ("photos", 1), ("last", True), ("lr", 1e-4)])
def test_with_other_versions_what_else_differs_is_shown_but_not_evaluated(run, name, change):
    another_torch(run, PLAIN)
    change_report(run, PLAIN, 1, **{name: read_record(trial_folder(run, PLAIN)).reports[0][name] + change})
    said = replayed(PLAIN)
    assert said.code == 0 and f" {name} " in said.out and "Within tolerance: 2 epochs" in said.out


@pytest.mark.parametrize("share, code", [(0.9, 0), (1.1, 1)])
@pytest.mark.parametrize("epoch", [1, 2])
def test_with_other_versions_every_train_loss_may_drift_by_a_share_of_itself(run, epoch, share, code):
    another_torch(run, PLAIN)
    now = read_record(trial_folder(run, PLAIN)).reports[epoch - 1]["train_loss"]
    change_report(run, PLAIN, epoch, train_loss=now / (1 - share * LOSS))
    said = replayed(PLAIN)
    assert said.code == code
    assert (f"Not within tolerance: epoch {epoch}: train_loss -" in said.out) == bool(code)


def test_a_row_names_three_differences_and_counts_the_rest(run):
    change_report(run, PLAIN, 1, train_loss=9.0, accuracy=0.0, lr=1.0, photos=0, last=True)
    said = replayed(PLAIN, "--epochs", 1)
    assert said.out.count("; and 2 more") == 1 and "and 4 more differences" in said.out


def test_with_other_versions_probabilities_are_shown_but_not_evaluated(run):
    another_torch(run, PLAIN)
    kept = read_predictions(trial_folder(run, PLAIN))
    kept.heads[0][0] += 0.5
    write_predictions(trial_folder(run, PLAIN), kept)
    said = replayed(PLAIN)
    assert said.code == 0 and "validation probabilities by up to 5.0e-01" in said.out and "Within tolerance" in said.out


def test_other_threads_are_named_with_what_they_change(run):
    said = replayed(PLAIN, "--threads", 2)
    assert "threads: 1 then, 2 now" in said.out
    assert "Bitwise identical" in said.out or "(threads)" in said.out
    assert torch.get_num_threads() == 2


def test_the_threads_of_then_are_taken_by_default(run):
    torch.set_num_threads(2)
    assert "threads" not in replayed(PLAIN, "--epochs", 1).out.replace("The same code, libraries, threads", "")
    assert torch.get_num_threads() == 1


HERE = Conditions("CPU (Abacus, AVX2)", 2, "1.0", {"torch": "2.0"})


@pytest.mark.parametrize(
    "now, expected",
    [
        ({}, []),
        ({"device": "CPU (Abacus, AVX512)"}, [("device: ", "CPU (Abacus, AVX2) then", "CPU (Abacus, AVX512) now")]),
        ({"device": "CPU (Slide rule, AVX2)"}, [("device: ", "CPU (Abacus, AVX2) then", "CPU (Slide rule, AVX2) now")]),
        ({"device": "H100"}, [("device: ", "CPU (Abacus, AVX2) then", "H100 now")]),
        ({"threads": 1}, [("threads: ", "2 then", "1 now")]),
        ({"versions": {"torch": "2.0", "timm": "1.0"}}, [("timm: ", "then", "1.0 now")]),
        ({"versions": {}}, [("torch: ", "2.0 then", "now")]),
        ({"code": "2.0", "threads": 4}, [("threads: ", "2 then", "4 now"), ("code: ", "1.0 then", "2.0 now")]),
    ],
)
def test_the_same_bits_are_asked_for_where_all_that_decides_them_is_the_same(now, expected):
    assert not mistaken(unlike(HERE, replace(HERE, **now)), expected)


def test_the_same_bits_are_not_asked_of_a_gpu_nor_of_code_that_no_commit_holds():
    gpu, dirty = replace(HERE, device="H100"), replace(HERE, code="abc-dirty")
    assert not mistaken(unlike(gpu, gpu), [("device: ", "H100")])
    assert not mistaken(unlike(dirty, dirty), [("code: ", "abc-dirty")])


# What cannot be replayed


def refused(trial: int, *words: str | Path | int, run: str | Path = "faces") -> str:
    said = replayed(trial, *words, run=run)
    assert said.code == 2 and "Equal" not in said.out
    return said.err


def test_a_trial_that_does_not_exist_is_refused_with_those_that_do(run):
    (trial_folder(run, UNBUILDABLE) / "result.json").write_text("{")
    best = read_record(trial_folder(run, PLAIN)).best
    said = refused(77)
    assert said.startswith("runs/faces has no trial 77; it has 0: finished, macro F1 0.")
    trials = f"1: finished, macro F1 {best['score']:.4f} at epoch {best['epoch']}", "2: failed", "3: damaged", "4: interrupted"
    assert not missing(said, *trials, "5: interrupted", "6: finished")


@pytest.mark.parametrize("state, cause", [("interrupted", ""), ("failed", "crash"), ("failed", "memory")])
def test_a_trial_that_reported_nothing_is_refused_in_plain_words(run, state, cause):
    change_result(run, DIVERGED, state=state, cause=cause, reason="its process died")
    said = refused(DIVERGED)
    assert said.startswith("trial 2 ") and f"({state}: its process died)" in said
    assert (said := refused(BARE)).startswith("trial 5 ") and "(interrupted: nothing was reported)" in said


@pytest.mark.parametrize(
    "file, content, words",
    [
        ("config.json", "{", "JSONDecodeError"),
        ("valid.npz", "", "EOFError"),
        ("reports.jsonl", '{"epoch": 2}\n', "ValueError: reports.jsonl"),
        ("reports.jsonl", '{"epoch": 1, "score": 0.1}\n', "ValueError: reports.jsonl lacks accuracy, best_epoch"),
    ],
)
def test_a_damaged_record_is_refused_with_what_is_wrong(run, file, content, words):
    (trial_folder(run, PLAIN) / file).write_text(content)
    said = refused(PLAIN)
    assert said.startswith(f"runs/faces/trials/1 is damaged ({words}") and said.endswith("restore it from a backup")


def test_images_that_changed_are_refused_with_what_differs(run, moved):
    one, other = read_predictions(trial_folder(run, PLAIN)).ids[:2]
    shutil.copy(moved / "train" / "images" / one, moved / "train" / "images" / other)
    said = refused(PLAIN, "--data", moved)
    assert not missing(said, "faces", "content", f"1: {other} ")


def test_images_that_are_gone_are_refused_with_the_way_to_name_them(run, tmp_path):
    card = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", card | {"data": str(tmp_path / "gone")})
    said = refused(PLAIN)
    assert f"{tmp_path}/gone" in said and "--data" in said


def test_a_split_that_is_gone_or_not_the_trials_own_is_refused(run):
    table = run / SPLIT
    before = table.read_text()
    table.write_text(before.replace("fold 0", "fold 2").replace("fold 1", "fold 0").replace("fold 2", "fold 1"))
    assert "runs/faces/split.csv has the hash " in refused(PLAIN)
    table.unlink()
    assert not missing(refused(PLAIN), "runs/faces/split.csv", "No such file or directory", "restore it from a backup")


def test_weights_that_are_gone_are_refused_with_the_fix(run):
    file = trial_folder(run, PLAIN) / "config.json"
    values = json.loads(file.read_text())
    write_json(file, values | {"model": values["model"] | {"weights": "gone.pt"}})
    assert not missing(refused(PLAIN), "model/weights", "gone.pt")


def test_ctrl_c_ends_it_with_130(run, start_command):
    process = start_command(run.parent.parent, "tuner.replay", "--run", "faces", "--trial", str(FINISHED))
    assert process.stdout.readline().startswith("Trial 0 of faces")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Stopped by Ctrl-C." in out and "Traceback" not in err
