from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import nightly_after
from trainables.data.groups import first_of_tied, merge_tied, tie_copies
from trainables.data.images import Images
from trainables.data.settings import DataConfig
from trainables.data.splits import same_groups, split_groups, split_table
from trainables.data.targets import Classes, Scheme
from trainables.record import RunCard, write_run
from trainables.restore_data import restore_split
from trainables.storage import write_atomically

SCHEME = Scheme((Classes("kind", ("x", "y")),))


def draw(count: int = 60, each: int = 2) -> Images:
    """Groups of two images; every other group is of the other class."""
    groups = np.repeat(np.arange(count), each)
    ids = tuple(f"{group}/{number}.jpg" for group in range(count) for number in range(each))
    return Images(Path("root"), ids, groups, groups[:, None] % 2, SCHEME)


def digests_of(images: Images, copies: dict[str, str] | None = None) -> dict[str, str]:
    """A content of each image's own, but of those that are copies of others."""
    own = {name: f"{index:016x}" for index, name in enumerate(images.ids)}
    return own | {copy: own[name] for copy, name in (copies or {}).items()}


COPIES = {"1/0.jpg": "30/1.jpg", "30/0.jpg": "8/0.jpg", "17/1.jpg": "16/1.jpg"}  # ties 1, 8 and 30, and 16 with 17


def test_groups_of_one_image_are_tied_named_and_counted():
    tied = tie_copies(draw(), digests_of(draw(), COPIES))
    assert sorted(map(set, tied.ties), key=min) == [{1, 30}, {8, 30}, {16, 17}]
    copies, twofold = tied.left_out
    assert "several groups" in copies.reason and len(copies.names) == 3 and "1/0.jpg = 30/1.jpg" in copies.names
    assert twofold.names == ("1/0.jpg (y) = 30/1.jpg (x)", "16/1.jpg (x) = 17/1.jpg (y)")


def test_copies_within_a_group_tie_nothing():
    images = draw()
    assert tie_copies(images, digests_of(images, {"1/0.jpg": "1/1.jpg"})) is images and merge_tied(images) is images


@pytest.mark.parametrize("seed", nightly_after(4, range(30)))
def test_no_split_separates_tied_groups_and_without_ties_it_is_what_it_was(seed):
    images, settings = draw(), DataConfig(holdout=0.2, folds=3)
    tied = tie_copies(images, digests_of(images, COPIES))
    before, after = split_groups(images, settings, seed), split_groups(tied, settings, seed)
    assert all(len(set(after.part[np.isin(images.groups, tie)])) == 1 for tie in ((1, 8, 30), (16, 17)))
    followers = np.isin(images.groups, (8, 30, 17))
    assert (before.part == after.part)[~followers].all()
    assert (before.hash == after.hash) == (before.part == after.part).all()


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_ties_reach_as_far_as_a_slow_search_through_them(seed):
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.choice(40, 25, replace=False))
    ties = tuple(tuple(rng.choice(40, rng.integers(2, 4), replace=False).tolist()) for _ in range(rng.integers(0, 12)))
    for group, first in zip(groups, groups[first_of_tied(groups, ties)], strict=True):
        reached = {int(group)}
        while more := {other for tie in ties if reached & set(tie) for other in tie} - reached:
            reached |= more
        assert first == min(reached & set(groups.tolist()))


def test_tied_groups_are_one_group_from_then_on():
    images = draw()
    merged = merge_tied(tie_copies(images, digests_of(images, COPIES)))
    assert merged.ties == () and len(np.unique(merged.groups)) == 57
    assert set(merged.groups[np.isin(images.groups, (1, 8, 30))]) == {1}


@pytest.mark.parametrize("merges", [False, True], ids=["a run from before copies were looked for", "a run of today"])
def test_a_run_resumes_with_the_groups_it_began_with(tmp_path, merges):
    images = draw()
    digests = digests_of(images, COPIES)
    tied = tie_copies(images, digests) if merges else images
    split, began = split_groups(tied, DataConfig(), seed=0), merge_tied(tied)
    card = RunCard("old", "tiny", "root", (), 0, split.hash, (), 1, 1, "")
    write_run(tmp_path, card)
    write_atomically(tmp_path / "split.csv", split_table(began, split, digests))
    today = images.take(np.random.default_rng(0).permutation(len(images)))
    again, its = restore_split(tmp_path, card, today, digests, 0)
    assert again.ids == images.ids and (again.groups == began.groups).all() and (its.part == split.part).all()
    assert same_groups(split_table(began, split, digests), replace(began, groups=began.groups + 1000))
