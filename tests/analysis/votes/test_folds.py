import numpy as np
import pytest

from analysis.votes.folds import FOLDS, others, part_groups

SEEDS = range(20)


def draw(seed):
    """A few images each of up to thirty groups, who may look differently from image to image."""
    rng = np.random.default_rng(seed)
    return rng.integers(30, size=100), rng.integers(4, size=100)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_image_is_in_one_fold_and_no_group_in_two(seed):
    groups, target = draw(seed)
    parts = part_groups(groups, target, seed)
    assert len(parts) == FOLDS
    assert sorted(np.concatenate(parts)) == list(range(100))
    for rows in parts:
        assert not set(groups[rows]) & set(groups[others(rows, 100)])


@pytest.mark.parametrize("seed", SEEDS)
def test_others_are_all_rows_but_these(seed):
    rows = np.random.default_rng(seed).permutation(50)[:20]
    assert sorted([*rows, *others(rows, 50)]) == list(range(50))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_class_of_as_many_groups_as_folds_is_in_every_fold(seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(40), 3))
    target = np.where(groups < FOLDS, 0, 1)
    assert [len(set(groups[rows][target[rows] == 0])) for rows in part_groups(groups, target, seed)] == [1] * FOLDS


def test_fewer_groups_than_folds_make_a_fold_each():
    assert len(part_groups(np.array([7, 7, 8, 8, 9]), np.zeros(5, dtype=int))) == 3


def test_one_group_alone_is_not_parted():
    assert part_groups(np.array([7, 7, 7]), np.array([0, 1, 0])) == ()


def test_another_seed_parts_groups_otherwise():
    groups, target = draw(0)
    first, again, other = (part_groups(groups, target, seed) for seed in (1, 1, 2))
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in again] != [rows.tolist() for rows in other]


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_of_fewer_images_than_folds_are_parted_all_the_same(seed):
    groups = np.random.default_rng(seed).permutation(24)
    parts = part_groups(groups, np.repeat(np.arange(12), 2), seed)
    assert len(parts) == FOLDS
    assert sorted(np.concatenate(parts)) == list(range(24))


def test_no_fold_is_empty_however_few_groups_there_are():
    groups, target = np.array([0, 0, 2, 4, 1, 0, 3, 4, 2]), np.array([0, 0, 5, 6, 7, 0, 6, 0, 0])
    parts = part_groups(groups, target, seed=3)
    assert all(len(rows) for rows in parts) and sorted(np.concatenate(parts)) == list(range(9))
