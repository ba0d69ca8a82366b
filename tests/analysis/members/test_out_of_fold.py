"""Runs of tuner.refit --folds: one model a fold, together one trial that was validated on everybody who is not held out."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis.members.trials import EVERY_FOLD, load_runs
from tests.conftest import edit
from tests.messages import missing
from trainables.data.splits import HOLDOUT
from trainables.record import MODEL, read_predictions, trial_folder, write_predictions


@pytest.fixture(scope="module")
def refit(make_run, tmp_path_factory):
    """Two configurations of a search, on each of the two folds. Read it, do not change it."""
    return make_run(tmp_path_factory.mktemp("folds"), "refit", [{"task": "joint"}, {"task": "heads"}], refit_of="faces")


@pytest.fixture
def copied(refit, tmp_path):
    folder = tmp_path / "runs" / "refit"
    shutil.copytree(refit.folder, folder)
    return folder


def left_out(runs):
    return "\n".join(map(str, runs.left_out))


def test_models_of_one_configuration_on_every_fold_are_one_trial(refit):
    runs = load_runs([refit.folder])
    assert [trial.name for trial in runs.trials] == ["refit/0+1", "refit/2+3"]
    assert [trial.models for trial in runs.trials] == [
        tuple(trial_folder(refit.folder, number) / MODEL for number in numbers) for numbers in ((0, 1), (2, 3))
    ]
    assert runs.left_out == ()


def test_every_group_that_is_not_held_out_is_validated(refit):
    runs = load_runs([refit.folder])
    assert runs.part == EVERY_FOLD
    chosen = np.flatnonzero(refit.split.part != HOLDOUT)
    assert sorted(runs.valid.ids) == sorted(refit.images.ids[index] for index in chosen)
    assert not set(runs.valid.groups) & set(runs.holdout.groups)
    label = dict(zip(refit.images.ids, refit.images.labels.tolist(), strict=True))
    assert runs.valid.labels.tolist() == [label[name] for name in runs.valid.ids]


def test_each_image_is_answered_by_the_model_of_its_fold(refit):
    runs = load_runs([refit.folder])
    part = dict(zip(refit.images.ids, refit.split.part.tolist(), strict=True))
    for trial, first in zip(runs.trials, (0, 2), strict=True):
        said = {}
        for fold in range(2):
            predictions = read_predictions(trial_folder(refit.folder, first + fold))
            assert {part[name] for name in predictions.ids} == {fold}
            said |= dict(zip(predictions.ids, trial.task.answer(predictions.heads), strict=True))
        np.testing.assert_array_equal(trial.valid, [said[name] for name in runs.valid.ids])
        assert trial.score == runs.valid.score(runs.metric, trial.task.scheme, trial.valid)


def test_predictions_in_another_order_say_the_same(copied, refit):
    rng = np.random.default_rng(0)
    for number in range(4):
        saved = read_predictions(trial_folder(copied, number))
        order = rng.permutation(len(saved.ids))
        shuffled = replace(saved, ids=tuple(np.array(saved.ids)[order]), heads=[head[order] for head in saved.heads])
        write_predictions(trial_folder(copied, number), shuffled)
    for before, after in zip(load_runs([refit.folder]).trials, load_runs([copied]).trials, strict=True):
        np.testing.assert_array_equal(before.valid, after.valid)


@pytest.mark.parametrize("file", ["result.json", MODEL])
def test_a_configuration_that_lacks_a_fold_is_left_out_beside_a_complete_one(copied, file):
    (trial_folder(copied, 1) / file).unlink()
    runs = load_runs([copied])
    assert [trial.name for trial in runs.trials] == ["refit/2+3"]
    # Without weights it does not vote; its configuration was evaluated on every fold all the same.
    assert ("one of the 2 folds" in left_out(runs)) == (": refit/0" in left_out(runs)) == (file != MODEL)
    assert [trial.name for trial in runs.unkept] == (["refit/0+1"] if file == MODEL else [])
    assert "refit/1 (" in left_out(runs)


def test_a_damaged_prediction_of_one_fold_leaves_its_configuration_out_by_name(copied):
    file = trial_folder(copied, 3) / "valid.npz"
    os.truncate(file, file.stat().st_size // 2)
    runs = load_runs([copied])
    assert [trial.name for trial in runs.trials] == ["refit/0+1"]
    assert "1 damaged records: refit/2+3 (" in left_out(runs)


def test_without_a_complete_configuration_the_first_ones_fold_validates(copied):
    (trial_folder(copied, 1) / MODEL).unlink()
    (trial_folder(copied, 2) / MODEL).unlink()
    runs = load_runs([copied])
    assert [trial.name for trial in runs.trials] == ["refit/0"]
    assert runs.part == "fold 0"
    assert not missing(left_out(runs), "1 trials ", "fold 0", ": refit/3 (fold 1)")


def test_models_of_different_seeds_are_not_one_trial(copied):
    edit(trial_folder(copied, 1) / "config.json", seed=1000)
    runs = load_runs([copied])
    assert [trial.name for trial in runs.trials] == ["refit/2+3"]
    assert not missing(left_out(runs), "2 trials ", "one of the 2 folds", ": refit/0, refit/1")


def test_the_search_beside_its_refit_is_evaluated_by_the_refit(refit, faces):
    runs = load_runs([faces.folder, refit.folder])
    assert [trial.name for trial in runs.trials] == ["refit/0+1", "refit/2+3"]
    assert not missing(left_out(runs), "4 trials ", "one of the 2 folds", ": faces/0, faces/1, faces/2, faces/3")
