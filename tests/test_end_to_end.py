"""From images to an answer file, by the commands that people type."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app
from tests.conftest import already
from tests.messages import missing
from trainables.config import TrialConfig
from trainables.migrations import FORMAT
from trainables.record import MODEL, read_predictions, read_records, read_run
from tuner.cli import Options, TrialCount
from tuner.searching import search

EPOCH_KEYS = {
    "epoch",
    "distinct",
    "shown",
    "largest_repeat",
    "train_loss",
    "score",
    "accuracy",
    "target_scores",
    "lr",
    "seconds",
    "photos",
    "micro_batch",
    "images_per_second",
    "peak_memory",
    "best_epoch",
    "last",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def printed(home, demo, tiny_space, start_command) -> str:
    """What a search of four trials prints; its run is runs/tiny-1 in `home`."""
    words = ("--space", tiny_space, "--data", demo, "--trials", "4", "--no-dashboard")
    process = start_command(home, "tuner.run", *words)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, out + errors
    assert "Traceback" not in errors
    return out


@pytest.fixture(scope="module")
def run(home, printed) -> Path:
    return home / "runs" / "tiny-1"


@pytest.fixture(scope="module")
def records(run):
    return read_records(run)


def test_every_trial_leaves_a_complete_record(run, records):
    assert [record.number for record in records] == [0, 1, 2, 3]
    card, split = read_run(run), pd.read_csv(run / "split.csv")
    validated = split["photo"][split["part"] == "fold 0"]
    for record in records:
        # All four reach the rung at epoch 2.
        files = {"config.json", "reports.jsonl", "result.json", "rungs.json", "valid.npz"}
        assert {file.name for file in record.folder.iterdir() if file.is_file()} - {MODEL} == files
        values = json.loads((record.folder / "config.json").read_text())
        assert values.pop("format") == FORMAT
        assert TrialConfig.from_values(values).values() == values, "every effective value, defaults included"
        assert [report["epoch"] for report in record.reports] == list(range(1, len(record.reports) + 1))
        assert all(report.keys() == EPOCH_KEYS for report in record.reports)
        assert record.result.split == card.split
        assert record.result.code and record.result.device.startswith("CPU") and "torch" in record.result.versions
        assert record.best["score"] == max(report["score"] for report in record.reports)
        predictions = read_predictions(record.folder)
        assert predictions.ids == tuple(validated)
        (head,) = predictions.heads
        assert head.shape == (len(validated), 18) and head.dtype == np.float32
        np.testing.assert_allclose(head.sum(axis=1), 1, atol=1e-5)


def test_trials_that_cannot_learn_are_stopped_with_a_reason_in_plain_words(records):
    assert {record.result.state for record in records[:2]} <= {"finished", "stopped"}
    finished = [record for record in records if record.result.state == "finished"]
    assert finished and all("all 4 epochs" in record.result.reason for record in finished)
    for record in records[2:]:
        assert record.result.state == "stopped" and len(record.reports) == 2
        assert not missing(record.result.reason, "ASHA", "epoch 2", "macro F1 0.")


def test_only_the_best_two_have_weights_and_every_trial_is_on_tensorboard(records):
    best = sorted(records, key=lambda record: (-record.best["score"], record.number))[:2]
    assert [record.has_model for record in records] == [record in best for record in records]
    assert all(list((record.folder / record.config.model.backbone).glob("events.out.tfevents.*")) for record in records)


def test_the_run_says_what_it_was(run, demo):
    card = read_run(run)
    assert (card.name, card.space, card.trials, card.epochs, card.seed) == ("tiny-1", "tiny", 4, 4, 0)
    assert card.data == str(demo.resolve())
    assert card.command.startswith("python -m tuner.run --space ")
    assert card.scheme.classes == 18
    split = pd.read_csv(run / "split.csv")
    assert set(split["part"]) == {"fold 0", "fold 1", "holdout"}
    assert (split.groupby("person")["part"].nunique() == 1).all()
    files = {
        "run.json",
        "space.yaml",
        "split.csv",
        "baseline.json",
        "summary.json",
        "fidelity.json",
        "ray.log",
        ".lock",
        "optuna-journal.log",
    }
    assert {path.name for path in run.iterdir()} == files | {"trials", "trials.parquet"}


def test_the_first_trial_is_the_baseline_which_runs_to_its_end_and_the_best_is_compared_with_it(run, printed, records):
    best = max(records, key=lambda record: (record.best["score"], -record.number))
    found = json.loads((run / "baseline.json").read_text())
    assert records[0].result.state == "finished"
    assert (found["trial"], found["best"], found["valid_score"]) == ("tiny-1/0", f"tiny-1/{best.number}", records[0].best["score"])
    assert found["gain"] == pytest.approx(best.best["score"] - records[0].best["score"])
    assert found["gain_interval"][0] <= found["gain"] <= found["gain_interval"][1]
    assert sum("the baseline, trial 0" in line for line in printed.splitlines()) == 1


def test_the_last_table_ranks_the_trials_and_says_what_to_do_next(printed, records):
    best, second = sorted((record.best["score"] for record in records), reverse=True)[:2]
    lines = printed.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("Best trials of tiny-1"))) :]
    assert "macro F1 (mask, gender, age)" in table[0]
    assert f"{best:.3f}" in table[2] and f"{second:.3f}" in table[3]
    finished = sum(record.result.state == "finished" for record in records)
    assert f"4 trials: {finished} finished, {4 - finished} stopped" in printed
    assert "python -m analysis.ensemble --top 3 --run tiny-1" in printed
    assert sum(line.startswith("trial ") for line in lines) == 4, "one line for every ended trial"


def test_the_best_two_vote_and_answer_for_every_eval_image_in_order(home, run, demo, monkeypatch):
    monkeypatch.chdir(home)
    result = CliRunner().invoke(app, ["--top", "2", "--run", "tiny-1"])
    assert result.exit_code == 0, result.output
    scores = json.loads((run / "ensemble" / "scores.json").read_text())
    assert len(scores["members"]) == 2
    lines = (run / "ensemble" / "submission.csv").read_text().splitlines()
    names = [line.split(",")[0] for line in (demo / "eval" / "info.csv").read_text().splitlines()[1:]]
    assert lines[0] == "ImageID,ans"
    assert [line.split(",")[0] for line in lines[1:]] == names
    assert all(0 <= int(line.split(",")[1]) < 18 for line in lines[1:])


@pytest.mark.nightly
def test_a_joint_model_and_three_specialists_vote_together(home, run, demo, tiny_space, ray_cluster, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")
    attributes = ("mask", "gender", "age")
    for name in attributes:
        changes = (f"task={name}", "run/epochs=2")
        options = Options(space=str(tiny_space), data=demo, trials=TrialCount(1), name=name, changes=changes)
        assert search(options, Console(quiet=True), already(ray_cluster)) == 0
    named = [word for name in ("tiny-1", *attributes) for word in ("--run", name)]
    result = CliRunner().invoke(app, ["--top", "3", *named])
    assert result.exit_code == 0, result.output
    members = json.loads((run / "ensemble" / "scores.json").read_text())["members"]
    assert sorted(len(member["trials"]) for member in members) == [1, 1, 3]
    (specialists,) = [member["trials"] for member in members if len(member["trials"]) == 3]
    assert [trial["run"] for trial in specialists] == list(attributes)
    assert len(pd.read_csv(run / "ensemble" / "submission.csv")) == 28
