import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.members.predictions import (
    TrialModels,
    count_passes,
    data_folder,
    labelled_source,
    predict_transforms,
    predict_trials,
    unlabelled_source,
    wanted_views,
)
from analysis.members.trials import load_runs
from analysis.members.tta import TRANSFORMS
from trainables.checkpoint import load_model
from trainables.data.batches import plain_batches
from trainables.data.images import Unlabelled
from trainables.data.layouts.reading import read_images, read_unlabelled
from trainables.data.settings import DataConfig
from trainables.data.views import build_views, open_view
from trainables.loop import predict
from trainables.record import RunError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(faces):
    return load_runs([faces.folder])


@pytest.fixture
def copied(people, tmp_path):
    """A copy of the data set that a test may change."""
    return shutil.copytree(people, tmp_path / "people")


def source_of(folder, runs, sample, cache):
    images = read_images(folder, runs.trials[0].record.config.data)
    return labelled_source(images, build_views(images, wanted_views(runs.trials), cache), sample)


def test_predicting_the_validation_images_again_gives_the_recorded_probabilities(runs, people, cache):
    source = source_of(people, runs, runs.valid, cache)
    again = predict_trials(runs.trials, source, CPU)
    for trial in runs.trials:
        np.testing.assert_array_equal(again[trial.name], trial.valid)


def test_files_of_weights_alone_predict_as_the_trial_does(runs, people, cache):
    source = source_of(people, runs, runs.valid, cache)
    for trial in runs.trials:
        models = TrialModels.read("anything", trial.models)
        assert models == replace(TrialModels.of(trial), name="anything")
        np.testing.assert_array_equal(predict_trials([models], source, CPU)["anything"], trial.valid)


def test_a_trial_of_several_models_predicts_their_mean(runs, people, cache):
    source = source_of(people, runs, runs.valid, cache)
    one, other = (replace(runs.trials[0], models=(file,)) for file in (runs.trials[0].models[0], runs.trials[2].models[0]))
    both = replace(one, models=(*one.models, *other.models))
    apart = [predict_trials([trial], source, CPU)[one.name] for trial in (one, other)]
    np.testing.assert_allclose(predict_trials([both], source, CPU)[one.name], np.mean(apart, axis=0), rtol=1e-12)
    assert count_passes([both, both], source, ("plain", "flip")) == 2 * 2 * len(source.ids)


def test_every_look_is_the_prediction_of_images_that_look_so_and_their_mean_counts(runs, people, cache):
    source = source_of(people, runs, runs.valid, cache)
    looks, moved, seconds = tuple(TRANSFORMS), [], {}
    seen = predict_transforms(runs.trials, source, CPU, looks, moved.append, seconds.__setitem__)
    assert sum(moved) == count_passes(runs.trials, source, looks) == len(TRANSFORMS) * 4 * len(source.ids)
    assert set(seconds) == {trial.name for trial in runs.trials} and all(0 < each < 1 for each in seconds.values())
    mean = predict_trials(runs.trials, source, CPU, looks=looks)
    for trial in runs.trials:
        model, card = load_model(trial.models[0])
        view = open_view(source.files.files[card.view])
        for name, look in TRANSFORMS.items():
            batches = [look(batch) for batch in plain_batches(view.images, view.rows(source.ids), 64, edges=card.config.model.sees_edges)]
            slow = card.task.answer(predict(model, batches, CPU, torch.float32))
            np.testing.assert_array_equal(seen[name][trial.name], slow)
        np.testing.assert_allclose(mean[trial.name], np.mean([seen[look][trial.name] for look in looks], axis=0), rtol=1e-12)


def test_no_pass_is_larger_than_the_trials_training_could_bear(runs, people, cache):
    record = runs.trials[0].record
    small = replace(runs.trials[0], record=replace(record, result=replace(record.result, micro_batch=5)))
    source, moved = source_of(people, runs, runs.valid, cache), []
    predicted = predict_trials([small], source, CPU, moved.append)
    assert max(moved) == 5 and sum(moved) == len(source.ids)
    np.testing.assert_allclose(predicted[small.name], small.valid, atol=1e-6)


def test_the_holdout_and_its_images_without_labels_are_predicted_alike(runs, people, cache):
    labelled = source_of(people, runs, runs.holdout, cache)
    images = Unlabelled(people / "train" / "images", runs.holdout.ids)
    plain = unlabelled_source(images, build_views(images, wanted_views(runs.trials), cache))
    one, other = (predict_trials(runs.trials, source, CPU) for source in (labelled, plain))
    for trial in runs.trials:
        np.testing.assert_array_equal(one[trial.name], other[trial.name])


def test_each_trial_predicts_each_image_once_though_several_members_hold_it(runs, people, cache):
    source = source_of(people, runs, runs.holdout, cache)
    moved = []
    predicted = predict_trials([*runs.trials, *runs.trials], source, CPU, moved.append)
    assert sum(moved) == len(runs.trials) * len(runs.holdout.ids)
    assert set(predicted) == {trial.name for trial in runs.trials}


def test_an_eval_image_that_cannot_be_decoded_is_predicted_from_a_black_row(runs, copied, tmp_path):
    images = read_unlabelled(copied, DataConfig())
    (images.root / images.ids[4]).write_bytes(b"no image")
    files = build_views(images, wanted_views(runs.trials), tmp_path)
    assert list(files.bad) == [images.ids[4]]
    predicted = predict_trials(runs.trials[:1], unlabelled_source(images, files), CPU)[runs.trials[0].name]
    assert predicted.shape == (len(images.ids), 18)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(b"no image")])
def test_a_holdout_image_that_is_gone_or_broken_is_refused(runs, copied, tmp_path, harm):
    harm(copied / "train" / "images" / runs.holdout.ids[0])
    with pytest.raises(RunError, match=f"1 images .*{runs.holdout.ids[0]}"):
        source_of(copied, runs, runs.holdout, tmp_path)


def test_labels_that_changed_since_the_run_are_refused(runs, copied, tmp_path):
    table = copied / "train" / "train.csv"
    group = runs.holdout.ids[0].split("/")[0]
    rows = [
        line.replace(",female,", ",X,").replace(",male,", ",female,").replace(",X,", ",male,") for line in table.read_text().split("\n")
    ]
    table.write_text("\n".join(new if group in new else old for new, old in zip(rows, table.read_text().split("\n"), strict=True)))
    with pytest.raises(RunError, match=f"7 images .*{runs.holdout.ids[0]}"):
        source_of(copied, runs, runs.holdout, tmp_path)


def test_data_that_is_gone_is_refused_with_its_folder_and_the_fix(faces, tmp_path):
    folder = shutil.copytree(faces.folder, tmp_path / "faces")
    card = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(card | {"data": "/gone"}))
    with pytest.raises(RunError, match=r"faces .*/gone.*faces/run.json"):
        data_folder(load_runs([folder]))


def test_data_of_any_run_of_the_split_will_do(runs, people, tmp_path):
    moved = replace(runs.cards[0], data=str(tmp_path / "gone"))
    both = replace(runs, folders=runs.folders * 2, cards=(moved, *runs.cards))
    assert data_folder(both) == people
