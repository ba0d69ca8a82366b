"""Splits that the data brings with it: kept to the image, completed from the images that train, and checked for what their parts share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainables.data.groups import tie_copies
from trainables.data.images import TEST, TRAIN, VALID, DataError, Images
from trainables.data.settings import DataConfig
from trainables.data.splits import ALWAYS, HOLDOUT, NO_FOLD, read_split, shared_by_parts, split_groups, split_table
from trainables.data.targets import Classes, Scheme

SETTINGS = DataConfig(folds=3, holdout=0.2)


def draw(seed: int, *given: int, count: int = 120) -> Images:
    """Images of three classes in groups of two, each group in one of the given parts."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count // 2), 2)
    return Images(
        root=Path(),
        ids=tuple(f"{index}.png" for index in range(count)),
        groups=groups,
        labels=rng.integers(3, size=(count, 1)),
        scheme=Scheme((Classes("class", ("a", "b", "c")),)),
        given=rng.choice(given, size=count // 2)[groups] if given else None,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("parts", [(TRAIN, VALID), (TRAIN, TEST), (TRAIN, VALID, TEST)])
def test_every_image_stays_in_the_part_that_the_data_gives_it(seed, parts):
    images = draw(seed, *parts)
    split = split_groups(images, SETTINGS, seed)
    if VALID in parts:
        assert set(split.valid) == set(np.flatnonzero(images.given == VALID))
    if TEST in parts:
        assert set(split.holdout) == set(np.flatnonzero(images.given == TEST))
    assert set(split.train) <= set(np.flatnonzero(images.given == TRAIN))
    assert sorted([*split.train, *split.valid, *split.holdout]) == list(range(len(images)))


@pytest.mark.parametrize("seed", range(5))
def test_what_the_data_does_not_give_is_cut_from_the_images_that_train_group_by_group(seed):
    validates, tests = draw(seed, TRAIN, VALID), draw(seed, TRAIN, TEST)
    held_out = split_groups(validates, SETTINGS, seed)
    assert 0 < len(held_out.holdout) < len(held_out.train) and (validates.given[held_out.holdout] == TRAIN).all()
    folded = split_groups(tests, SETTINGS, seed)
    assert set(folded.part.tolist()) == {HOLDOUT, 0, 1, 2} and (tests.given[folded.valid] == TRAIN).all()
    for images, split in ((validates, held_out), (tests, folded)):
        assert all(len(set(split.part[images.groups == group].tolist())) == 1 for group in range(60))


def test_with_all_parts_given_nothing_is_drawn_and_validation_is_fold_0():
    images = draw(0, TRAIN, VALID, TEST)
    split, other = split_groups(images, SETTINGS, 0), split_groups(images, DataConfig(folds=9, holdout=0.4), 7)
    assert split.hash == other.hash
    assert split.part.tolist() == [{TRAIN: ALWAYS, VALID: 0, TEST: HOLDOUT}[part] for part in images.given.tolist()]
    everything = split_groups(images, DataConfig(fold=NO_FOLD), 0)
    assert set(everything.train) == set(np.flatnonzero(images.given != TEST)) and len(everything.valid) == 0
    with pytest.raises(DataError, match="data/fold is 1"):
        split_groups(images, DataConfig(fold=1), 0)


@pytest.mark.parametrize("parts", [(TRAIN, VALID), (TRAIN, VALID, TEST)])
def test_the_table_of_such_a_split_is_read_again(parts):
    images = draw(1, *parts)
    split, digests = split_groups(images, SETTINGS, 1), {name: f"{index:016x}" for index, name in enumerate(images.ids)}
    again = read_split(split_table(images, split, digests), replace(images, given=None), digests, 0)
    assert again.hash == split.hash and again.part.tolist() == split.part.tolist()


def test_a_split_without_parts_given_is_as_it_was():
    assert split_groups(draw(3), SETTINGS, 3).hash == "773b1b9de79e9faf"


def test_groups_and_identical_images_across_parts_are_named_with_what_they_do_to_the_score():
    images = replace(draw(0, TRAIN), given=np.repeat([TRAIN, TEST], 60))
    digests = {name: name for name in images.ids}
    assert shared_by_parts(tie_copies(images, digests)) == ()
    copies = digests | {"0.png": "same", "100.png": "same"}
    (by_content,) = shared_by_parts(tie_copies(images, copies))
    assert by_content.names == ("0.png (train) = 100.png (test)",) and "scores" in by_content.reason
    (by_group,) = shared_by_parts(replace(images, groups=np.where(images.groups == 59, 0, images.groups)))
    assert by_group.names == ("0.png (train) = 118.png (test)",)
    assert shared_by_parts(draw(0)) == ()


@pytest.mark.parametrize("count", [2, 4])
def test_too_few_groups_for_the_parts_that_are_lacking_are_refused(count):
    images = replace(draw(0, TRAIN, count=count), given=np.array([TRAIN] * (count - 1) + [TEST]), groups=np.arange(count))
    with pytest.raises(DataError, match="too few for 5 folds"):
        split_groups(images, DataConfig(), 0)
