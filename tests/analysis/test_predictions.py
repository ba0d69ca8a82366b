import json
import shutil

import numpy as np
import pytest
import torch

from analysis.predictions import data_folder, labelled_source, predict_trials, unlabelled_source, wanted_views
from analysis.trials import Runs, load_runs
from trainables.data.photos import Unlabelled, read_photos, read_unlabelled
from trainables.data.views import build_views
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
    photos = read_photos(folder, runs.trials[0].record.config.data)
    return labelled_source(photos, build_views(photos, wanted_views(runs.trials), cache), sample)


def test_predicting_the_validation_photos_again_gives_the_recorded_probabilities(runs, people, cache):
    source = source_of(people, runs, runs.valid, cache)
    again = predict_trials(runs.trials, source, CPU)
    for trial in runs.trials:
        np.testing.assert_array_equal(again[trial], trial.valid)


def test_the_holdout_and_its_photos_without_labels_are_predicted_alike(runs, people, cache):
    labelled = source_of(people, runs, runs.holdout, cache)
    photos = Unlabelled(people / "train" / "images", runs.holdout.ids)
    plain = unlabelled_source(photos, build_views(photos, wanted_views(runs.trials), cache))
    one, other = (predict_trials(runs.trials, source, CPU) for source in (labelled, plain))
    for trial in runs.trials:
        np.testing.assert_array_equal(one[trial], other[trial])


def test_each_trial_predicts_each_photo_once_though_several_members_hold_it(runs, people, cache):
    source = source_of(people, runs, runs.holdout, cache)
    moved = []
    predicted = predict_trials([*runs.trials, *runs.trials], source, CPU, moved.append)
    assert sum(moved) == len(runs.trials) * len(runs.holdout.ids)
    assert set(predicted) == set(runs.trials)


def test_an_eval_photo_that_cannot_be_decoded_is_predicted_from_a_black_row(runs, copied, tmp_path):
    photos = read_unlabelled(copied)
    (photos.root / photos.ids[4]).write_bytes(b"no photo")
    files = build_views(photos, wanted_views(runs.trials), tmp_path)
    assert list(files.bad) == [photos.ids[4]]
    predicted = predict_trials(runs.trials[:1], unlabelled_source(photos, files), CPU)[runs.trials[0]]
    assert predicted.shape == (len(photos.ids), 18)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(b"no photo")])
def test_a_holdout_photo_that_is_gone_or_broken_is_refused(runs, copied, tmp_path, harm):
    harm(copied / "train" / "images" / runs.holdout.ids[0])
    with pytest.raises(RunError, match=f"1 photos of the run are gone or cannot be decoded, {runs.holdout.ids[0]}"):
        source_of(copied, runs, runs.holdout, tmp_path)


def test_labels_that_changed_since_the_run_are_refused(runs, copied, tmp_path):
    table = copied / "train" / "train.csv"
    person = runs.holdout.ids[0].split("/")[0]
    rows = [
        line.replace(",female,", ",X,").replace(",male,", ",female,").replace(",X,", ",male,") for line in table.read_text().split("\n")
    ]
    table.write_text("\n".join(new if person in new else old for new, old in zip(rows, table.read_text().split("\n"), strict=True)))
    with pytest.raises(RunError, match="7 photos have another label than when the run was made"):
        source_of(copied, runs, runs.holdout, tmp_path)


def test_data_that_is_gone_is_refused_with_its_folder_and_the_mend(faces, tmp_path):
    folder = shutil.copytree(faces.folder, tmp_path / "faces")
    card = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(card | {"data": "/gone"}))
    with pytest.raises(RunError, match=r"photos of faces were in /gone, which is gone.*correct data in .*faces/run.json"):
        data_folder(load_runs([folder]))


def test_data_of_any_run_of_the_split_will_do(runs, people, tmp_path):
    moved = type(runs.cards[0])(**{**vars(runs.cards[0]), "data": str(tmp_path / "gone")})
    both = Runs((*runs.folders, *runs.folders), (moved, *runs.cards), runs.valid, runs.holdout, runs.trials, ())
    assert data_folder(both) == people
