"""What is unlike anything learned, and how often what is like it is called so."""

import numpy as np
import pytest

from analysis.evaluation.fitted_ensemble import FILE as ENSEMBLE
from analysis.evaluation.fitted_ensemble import ensemble_hash
from analysis.evaluation.novelty import (
    FILE,
    KEPT,
    Learned,
    Novelty,
    learn,
    model_for,
    nearest,
    read_novelty,
    reference,
    unit,
    write_novelty,
)
from analysis.members.trials import load_runs
from trainables.record import RunError


def around(centre: int, images: int, seed: int, features: int = 16) -> np.ndarray:
    return np.eye(features)[centre] + np.random.default_rng(seed).normal(0, 0.2, (images, features))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ENSEMBLE).write_text("{}")
    return tmp_path


@pytest.fixture
def novelty() -> Novelty:
    """Of two trials that learned from the same images."""
    return learn({name: (0, around(0, 300, seed), around(0, 400, seed + 1)) for seed, name in ((0, "faces/1"), (5, "faces/2"))})


def test_the_distance_is_that_to_the_tenth_nearest_direction_and_its_length_does_not_count():
    learned = unit(np.random.default_rng(0).normal(size=(50, 4)))
    seen = np.random.default_rng(1).normal(size=(3, 4))
    expected = np.sort(np.linalg.norm(unit(seen)[:, None] - learned[None], axis=2), axis=1)[:, 9]
    np.testing.assert_allclose(nearest(seen, learned), expected, atol=1e-5)
    np.testing.assert_allclose(nearest(7 * seen, learned), expected, atol=1e-5)
    assert nearest(seen, learned[:3]).shape == (3,) and np.isfinite(nearest(np.zeros((1, 4)), learned)).all()


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 0.2])
def test_of_images_like_those_learned_from_no_more_than_the_share_that_is_asked_for_is_flagged(novelty, false_alarms):
    like = novelty.learned["faces/1"].distances(around(0, 2000, 1))
    alone = learn({"faces/1": (0, around(0, 300, 0), around(0, 400, 1))})
    assert alone.flags(like, false_alarms).mean() < false_alarms + 3 * np.sqrt(false_alarms / 400)
    assert alone.flags(alone.learned["faces/1"].distances(around(3, 100, 2)), false_alarms).all()


def test_p_values_are_the_share_of_validation_images_as_far_away_and_never_zero():
    found = Novelty({}, np.array([1.0, 2, 2, 4]))
    np.testing.assert_allclose(found.p_values(np.array([0, 2, 3, 9])), [1, 4 / 5, 2 / 5, 1 / 5])
    assert found.least == 1 / 5 and not found.flags(np.array([9.0]), 0.1).any()


def test_a_file_gives_back_what_was_written(folder, novelty):
    write_novelty(folder, novelty)
    found = read_novelty(folder, ensemble_hash(folder))
    np.testing.assert_array_equal(found.valid, novelty.valid)
    seen = around(2, 5, 0)
    for name, one in novelty.learned.items():
        np.testing.assert_array_equal(found.learned[name].distances(seen), one.distances(seen))


def test_none_is_read_where_nothing_lies_or_what_lies_is_of_another_ensemble(folder, novelty):
    assert read_novelty(folder, ensemble_hash(folder)) is None
    write_novelty(folder, novelty)
    (folder / ENSEMBLE).write_text('{"other": 1}')
    assert read_novelty(folder, ensemble_hash(folder)) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_file_is_refused_by_name(folder, content):
    (folder / FILE).write_bytes(content)
    with pytest.raises(RunError, match=FILE):
        read_novelty(folder, ensemble_hash(folder))


def test_training_images_of_every_group_and_validation_images_no_model_learned_from_are_remembered(faces):
    runs = load_runs([faces.folder])
    train, valid = reference(runs, seed=0)
    assert set(valid.ids) == set(runs.valid.ids) and len(train.ids) <= KEPT and not set(train.ids) & set(valid.ids)
    groups = len(set(train.groups))
    assert len(set(train.groups[:groups])) == groups, "an image of each group comes before a second one of any"
    assert all(trial.models[model_for(trial, valid)] == trial.evaluated[valid.parts[0]] for trial in runs.trials)


def test_distances_are_in_units_of_what_is_usual():
    assert Learned(0, unit(np.eye(2)), usual=0.5).distances(np.array([[-1.0, 0.0]]))[0] == pytest.approx(4)
