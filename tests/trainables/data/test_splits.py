from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trainables.config import DataConfig
from trainables.data.labels import contest_scheme
from trainables.data.photos import DataError, Photos
from trainables.data.splits import absent_classes, split_people, write_split

SCHEME = contest_scheme((30, 60))
SEEDS = range(50)
SHOTS = [0, 0, 0, 0, 0, 1, 2]  # mask ids of one person's photos


def draw_photos(seed: int, people: int = 120, least: int = 8) -> Photos:
    """People of random gender and age, at least so many of each, some of whom lack a few shots; photos in random order."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.concatenate([np.repeat(np.arange(6), least), rng.integers(6, size=people - 6 * least)]))
    shots = [(person, mask, kind // 3, kind % 3) for person, kind in enumerate(kinds) for mask in SHOTS if mask or rng.random() > 0.1]
    shots = rng.permutation(shots)
    ids = tuple(f"{person}/{index}.jpg" for index, person in enumerate(shots[:, 0]))
    return Photos(Path("root"), ids, np.arange(len(ids)), shots[:, 0], shots[:, 1:], SCHEME)


def shares(photos: Photos, chosen: np.ndarray) -> np.ndarray:
    classes = photos.scheme.joint(photos.labels)[chosen]
    return np.bincount(classes, minlength=photos.scheme.classes) / len(classes)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_on_both_sides_of_any_split(seed):
    photos = draw_photos(seed)
    settings = DataConfig(holdout=0.1 + 0.006 * seed, folds=2 + seed % 4, fold=seed % 2)
    split = split_people(photos, settings, seed)
    assert all(len(set(split.part[photos.people == person])) == 1 for person in range(120))
    sides = [set(photos.people[side]) for side in (split.train, split.valid, split.holdout)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 120


@pytest.mark.parametrize("seed", SEEDS)
def test_every_photo_is_on_one_side(seed):
    photos = draw_photos(seed)
    split = split_people(photos, DataConfig(), seed)
    assert sorted([*split.train, *split.valid, *split.holdout]) == list(range(len(photos)))


@pytest.mark.parametrize("seed", range(10))
def test_every_side_has_nearly_the_classes_shares_of_the_whole(seed):
    photos = draw_photos(seed, people=600, least=20)
    split = split_people(photos, DataConfig(), seed)
    for side in (split.train, split.valid, split.holdout):
        np.testing.assert_allclose(shares(photos, side), shares(photos, np.arange(len(photos))), atol=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_sides_have_the_sizes_asked_for(seed):
    photos = draw_photos(seed, people=400)
    split = split_people(photos, DataConfig(holdout=0.25, folds=3), seed)
    assert len(set(photos.people[split.holdout])) == 100
    assert len(set(photos.people[split.train])) == pytest.approx(200, abs=1)


def test_folds_take_turns_in_validating_and_share_the_holdout():
    photos = draw_photos(0)
    splits = [split_people(photos, DataConfig(fold=fold), seed=0) for fold in range(5)]
    assert sorted(np.concatenate([split.valid for split in splits])) == sorted({*splits[0].train, *splits[0].valid})
    assert all((split.holdout == splits[0].holdout).all() for split in splits)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    photos = draw_photos(0)
    first, again, other = (split_people(photos, DataConfig(), seed) for seed in (1, 1, 2))
    assert (first.part == again.part).all() and first.hash == again.hash
    assert (first.part != other.part).any() and first.hash != other.hash


def test_the_hash_tells_photos_labels_and_folds_apart():
    photos = draw_photos(0)
    relabelled, renamed = photos.labels.copy(), ("another.jpg", *photos.ids[1:])
    relabelled[0] = relabelled[0] * 0 + (relabelled[0] == 0)
    hashes = [
        split_people(changed, DataConfig(fold=fold), seed=0).hash
        for changed, fold in ((photos, 0), (photos, 1), (replace(photos, labels=relabelled), 0), (replace(photos, ids=renamed), 0))
    ]
    assert len(set(hashes)) == 4


def test_classes_with_fewer_people_than_sides_are_named_with_what_to_do():
    photos = draw_photos(0, people=60, least=5)
    with pytest.raises(DataError) as caught:
        split_people(photos, DataConfig(folds=20), seed=0)
    lines = str(caught.value).splitlines()
    people = {name: len(set(photos.people[SCHEME.joint(photos.labels) == number])) for number, name in enumerate(SCHEME.class_names())}
    assert lines[0] == f"{len(lines) - 2} classes have fewer people than the 20 folds and the hold-out need (21):"
    assert lines[1:-1] == [f"  {name}: {count} people" for name, count in people.items() if count < 21]
    assert lines[-1].startswith("Add photos of such people, take fewer folds (--set data/folds=2)")


def test_two_photos_are_too_few():
    photos = draw_photos(0)
    two = replace(photos, ids=photos.ids[:2], rows=photos.rows[:2], people=photos.people[:2], labels=photos.labels[:2])
    with pytest.raises(DataError, match="fewer people than the 5 folds and the hold-out need"):
        split_people(two, DataConfig(), seed=0)


def test_too_few_people_for_a_holdout_of_every_kind_is_said_with_the_mend():
    photos = draw_photos(0, people=36, least=6)
    with pytest.raises(DataError, match="36 people are too few to hold 5% of them out.*6 kinds of people.*raise data/holdout"):
        split_people(photos, DataConfig(holdout=0.05), seed=0)


def test_a_fold_that_there_is_not_is_refused():
    with pytest.raises(DataError, match="data/fold is 5, but the folds are 0 to 4"):
        split_people(draw_photos(0), DataConfig(fold=5), seed=0)


def test_classes_that_nobody_has_are_named():
    photos = draw_photos(0)
    keep = photos.labels[:, 2] < 2
    young = replace(photos, ids=photos.ids[: keep.sum()], rows=photos.rows[keep], people=photos.people[keep], labels=photos.labels[keep])
    assert absent_classes(photos) == []
    assert absent_classes(young) == [name for name in SCHEME.class_names() if name.endswith(">=60")]


def test_the_written_table_says_who_is_on_which_side(tmp_path, photos, split):
    write_split(tmp_path / "split.csv", photos, split)
    table = pd.read_csv(tmp_path / "split.csv")
    assert list(table.columns) == ["photo", "person", "class", "part"]
    assert table["photo"].tolist() == list(photos.ids)
    assert set(table["photo"][table["part"] == "holdout"]) == {photos.ids[index] for index in split.holdout}
    assert set(table["photo"][table["part"] == "fold 0"]) == {photos.ids[index] for index in split.valid}
    assert (table.groupby("person")["part"].nunique() == 1).all()
