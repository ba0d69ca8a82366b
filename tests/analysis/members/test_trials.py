import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis.members.trials import load_runs, newest_run
from tests.conftest import edit
from tests.messages import missing, mistaken
from trainables.data.splits import HOLDOUT
from trainables.record import MODEL, SPLIT, RunError, read_predictions, trial_folder, write_predictions


@pytest.fixture
def copied(faces, tmp_path):
    """A copy of the run that a test may change."""
    folder = tmp_path / "runs" / "faces"
    shutil.copytree(faces.folder, folder)
    return folder


def left_out(runs):
    return "\n".join(map(str, runs.left_out))


def test_every_complete_trial_is_a_candidate_with_its_recorded_score(faces):
    runs = load_runs([faces.folder])
    assert [str(trial) for trial in runs.trials] == ["faces/0", "faces/1", "faces/2", "faces/3"]
    assert [trial.score for trial in runs.trials] == [trial.record.best["score"] for trial in runs.trials]
    assert runs.left_out == ()


def test_parts_hold_the_images_groups_and_classes_of_the_split(faces):
    runs = load_runs([faces.folder])
    for sample, part in ((runs.valid, faces.split.fold), (runs.holdout, HOLDOUT)):
        chosen = np.flatnonzero(faces.split.part == part)
        assert sample.ids == tuple(faces.images.ids[index] for index in chosen)
        assert (sample.groups == faces.images.groups[chosen]).all()
        assert (sample.labels == faces.images.labels[chosen]).all()


@pytest.mark.parametrize("state", ["stopped", "interrupted", "failed"])
def test_however_a_trial_ended_it_can_vote_while_it_can_predict(copied, state):
    edit(trial_folder(copied, 0) / "result.json", state=state)
    assert len(load_runs([copied]).trials) == 4


def test_trials_without_weights_prediction_or_best_epoch_are_counted(copied):
    (trial_folder(copied, 0) / MODEL).unlink()
    (trial_folder(copied, 1) / "valid.npz").unlink()
    edit(trial_folder(copied, 2) / "result.json", best_epoch=0, state="failed")
    runs = load_runs([copied])
    assert [str(trial) for trial in runs.trials] == ["faces/3"]
    assert [(str(trial), trial.models) for trial in runs.unkept] == [("faces/0", ())]
    assert not missing(left_out(runs), "3 trials ", ": faces/0 (finished), faces/1 (finished), faces/2 (failed)")


DAMAGES = {
    "config.json": b"{",
    "result.json": b"[]",
    "reports.jsonl": b"{}\n{",
    "valid.npz": b"PK\x03\x04 cut short",
    MODEL: b"\x10\x00\x00\x00\x00\x00\x00\x00 not a header",
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_damaged_file_leaves_its_trial_out_by_name(copied, file):
    (trial_folder(copied, 1) / file).write_bytes(DAMAGES[file])
    runs = load_runs([copied])
    assert [str(trial) for trial in runs.trials] == ["faces/0", "faces/2", "faces/3"]
    assert "1 damaged records: faces/1 (" in left_out(runs)


@pytest.mark.parametrize("file", ["valid.npz", MODEL])
def test_a_file_that_was_cut_short_leaves_its_trial_out(copied, file):
    target = trial_folder(copied, 1) / file
    os.truncate(target, target.stat().st_size // 2)
    assert "damaged records: faces/1 (" in left_out(load_runs([copied]))


def test_a_trial_of_another_split_or_model_is_left_out(copied):
    edit(trial_folder(copied, 0) / "result.json", split="other")
    shutil.copy(trial_folder(copied, 1) / MODEL, trial_folder(copied, 3) / MODEL)
    runs = load_runs([copied])
    assert [str(trial) for trial in runs.trials] == ["faces/1", "faces/2"]
    assert not missing(left_out(runs), "faces/0 (", "split hash is other", f"faces/3 (ValueError: {MODEL} ")


def test_weights_and_predictions_of_different_epochs_are_damage_that_resuming_fixes(copied):
    folder = trial_folder(copied, 2)
    write_predictions(folder, replace(read_predictions(folder), epoch=3))
    runs = load_runs([copied])
    assert [str(trial) for trial in runs.trials] == ["faces/0", "faces/1", "faces/3"]
    assert not missing(left_out(runs), "faces/2 (ValueError: ", "weights are of epoch 1", "predictions of 3", "tuner.run --resume")


def test_trials_of_another_fold_than_the_first_are_left_out_in_words_and_not_as_damaged(copied):
    for number, fold in ((1, 1), (3, 1)):
        file = trial_folder(copied, number) / "config.json"
        values = json.loads(file.read_text())
        values["data"]["fold"] = fold
        file.write_text(json.dumps(values))
    runs = load_runs([copied])
    assert [str(trial) for trial in runs.trials] == ["faces/0", "faces/2"]
    assert not mistaken([left_out(runs)], [("2 trials ", "fold 0", ": faces/1 (fold 1), faces/3 (fold 1)")])


def test_the_first_trial_decides_the_fold_whose_groups_choose(copied):
    for number in range(4):
        file = trial_folder(copied, number) / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"data": {"fold": 1, "folds": 2}}))
    with pytest.raises(RunError, match="4 damaged records: .*valid.npz "):
        load_runs([copied])


def test_trials_without_a_validation_score_are_left_out_in_words(copied, make_run, tmp_path):
    refit = tmp_path / "runs" / "refit"
    shutil.copytree(copied, refit)
    origins = [{"trial": number, "epoch": 1, "score": 0.5} for number in range(4)]
    edit(refit / "run.json", name="refit", refit_of="gone", origins=origins)
    for number in range(4):
        file = trial_folder(refit, number) / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"data": {"fold": -1, "folds": 2, "holdout": 0.3}}))
    runs = load_runs([copied, refit])
    assert [str(trial) for trial in runs.trials] == ["faces/0", "faces/1", "faces/2", "faces/3"]
    assert not mistaken([left_out(runs)], [("4 trials ", "(--run)", ": refit/0, refit/1, ")])
    edit(refit / "run.json", refit_of="faces")
    assert [str(trial) for trial in load_runs([copied, refit]).trials] == ["refit/0", "refit/1", "refit/2", "refit/3"]


def test_predictions_are_aligned_by_image_id(copied):
    before = load_runs([copied]).trials[1]
    folder = trial_folder(copied, 1)
    saved = read_predictions(folder)
    order = np.random.default_rng(0).permutation(len(saved.ids))
    shuffled = replace(saved, ids=tuple(saved.ids[index] for index in order), heads=[head[order] for head in saved.heads])
    write_predictions(folder, shuffled)
    after = load_runs([copied]).trials[1]
    assert (after.valid == before.valid).all()


def test_predictions_of_other_images_or_shapes_are_damage(copied):
    saved = read_predictions(trial_folder(copied, 0))
    write_predictions(trial_folder(copied, 0), replace(saved, ids=("stranger", *saved.ids[1:])))
    write_predictions(trial_folder(copied, 3), replace(saved, heads=[head[:, :5] for head in saved.heads]))
    saved.heads[0][0, 0] = np.nan
    write_predictions(trial_folder(copied, 1), saved)
    runs = load_runs([copied])
    assert [str(trial) for trial in runs.trials] == ["faces/2"]
    assert not missing(left_out(runs), "3 damaged records: faces/0 (", "faces/1 (", "faces/3 (", "finite", str((len(saved.ids), 18)))


@pytest.mark.parametrize("spoil", [lambda head: 2 * head, lambda head: head - 0.2, np.zeros_like])
def test_numbers_that_are_no_probabilities_are_damage(copied, spoil):
    folder = trial_folder(copied, 0)
    saved = read_predictions(folder)
    write_predictions(folder, replace(saved, heads=[spoil(head) for head in saved.heads]))
    runs = load_runs([copied])
    assert "faces/0" not in [trial.name for trial in runs.trials]
    assert not missing(str(runs.left_out[0]), "damaged records: faces/0 (ValueError: valid.npz ", "probabilities")


def test_a_run_without_a_candidate_is_refused_with_the_reasons(copied):
    for number in range(4):
        (trial_folder(copied, number) / MODEL).unlink()
    with pytest.raises(RunError, match="faces: .*4 trials .*faces/0 "):
        load_runs([copied])


def test_runs_of_one_split_are_read_together(make_run, faces, tmp_path):
    ages = make_run(tmp_path, "ages", [{"task": "age"}])
    runs = load_runs([faces.folder, ages.folder])
    assert [str(trial) for trial in runs.trials][-2:] == ["faces/3", "ages/0"]


def test_runs_that_split_groups_differently_are_refused_with_both_hashes(make_run, faces, tmp_path):
    other = make_run(tmp_path, "other", [], seed=1)
    with pytest.raises(RunError, match=f"faces and other .*{faces.split.hash} and {other.split.hash}"):
        load_runs([faces.folder, other.folder])


def test_runs_of_different_metrics_are_refused_with_both(make_run, faces, tmp_path):
    other = make_run(tmp_path, "other", [])
    edit(other.folder / "run.json", metric="accuracy")
    with pytest.raises(RunError, match=r"faces and other .*f1_macro and accuracy"):
        load_runs([faces.folder, other.folder])


def test_an_unknown_metric_is_refused_with_the_file_and_the_nearest_name(copied):
    edit(copied / "run.json", metric="acuracy")
    with pytest.raises(RunError, match=r"run\.json.*'acuracy'.*accuracy"):
        load_runs([copied])


def test_a_run_is_ordered_by_its_own_metric(copied):
    edit(copied / "run.json", metric="neg_log_loss")
    runs = load_runs([copied])
    assert [trial.score for trial in runs.trials] == [
        runs.metric.score(runs.valid.truth(trial.task.scheme), trial.valid) for trial in runs.trials
    ]
    assert runs.best.score == max(trial.score for trial in runs.trials) < 0


def test_runs_that_name_their_classes_differently_are_refused(make_run, faces, tmp_path):
    other = make_run(tmp_path, "other", [], cuts=(30, 59))
    with pytest.raises(RunError, match=r"(?s)faces and other .*30-59, >=60 and .*30-58, >=59"):
        load_runs([faces.folder, other.folder])


@pytest.mark.parametrize("file", ["run.json", SPLIT])
def test_a_damaged_run_is_refused_by_the_name_of_its_file(copied, file):
    (copied / file).write_bytes(b"{}")
    with pytest.raises(RunError, match=rf"faces/{file}"):
        load_runs([copied])


def test_the_newest_run_is_the_one_begun_last(make_run, tmp_path):
    for age, name in enumerate(["b", "a", "c"]):
        os.utime(make_run(tmp_path, name, []).folder / "run.json", (1000 - age, 1000 - age))
    assert newest_run(tmp_path) == tmp_path / "b"


def test_without_runs_the_newest_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(RunError, match=f"{tmp_path}/ .*python -m tuner.run"):
        newest_run(tmp_path)
