import csv
import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import nightly_after
from tests.messages import missing, mistaken
from trainables.data.images import DataError, Images
from trainables.data.layouts.contest import contest_scheme
from trainables.data.settings import DataConfig
from trainables.data.splits import HOLDOUT, MOST, NO_FOLD, Split, absent_classes, rare_classes, read_split, split_groups, split_table
from trainables.data.targets import Classes, Scheme

SCHEME = contest_scheme((30, 60))
SEEDS = range(50)
SHOTS = [0, 0, 0, 0, 0, 1, 2]  # mask ids of one group's images


def draw_images(seed: int, groups: int = 120, least: int = 8) -> Images:
    """Groups of random gender and age, at least so many of each, some of whom lack a few shots; images in random order."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.concatenate([np.repeat(np.arange(6), least), rng.integers(6, size=groups - 6 * least)]))
    shots = [(group, mask, kind // 3, kind % 3) for group, kind in enumerate(kinds) for mask in SHOTS if mask or rng.random() > 0.1]
    shots = rng.permutation(shots)
    ids = tuple(f"{group}/{index}.jpg" for index, group in enumerate(shots[:, 0]))
    return Images(Path("root"), ids, shots[:, 0], shots[:, 1:], SCHEME)


def shares(images: Images, chosen: np.ndarray) -> np.ndarray:
    classes = images.scheme.joint(images.labels)[chosen]
    return np.bincount(classes, minlength=images.scheme.classes) / len(classes)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_group_is_in_two_parts_of_any_split(seed):
    images = draw_images(seed)
    settings = DataConfig(holdout=0.1 + 0.006 * seed, folds=2 + seed % 4, fold=seed % 2)
    split = split_groups(images, settings, seed)
    assert all(len(set(split.part[images.groups == group])) == 1 for group in range(120))
    sides = [set(images.groups[side]) for side in (split.train, split.valid, split.holdout)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 120


@pytest.mark.parametrize("seed", SEEDS)
def test_every_image_is_on_one_side(seed):
    images = draw_images(seed)
    split = split_groups(images, DataConfig(), seed)
    assert sorted([*split.train, *split.valid, *split.holdout]) == list(range(len(images)))


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_every_part_has_nearly_the_class_shares_of_all_images(seed):
    images = draw_images(seed, groups=600, least=20)
    split = split_groups(images, DataConfig(), seed)
    for side in (split.train, split.valid, split.holdout):
        np.testing.assert_allclose(shares(images, side), shares(images, np.arange(len(images))), atol=0.02)


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_sides_have_the_sizes_asked_for(seed):
    images = draw_images(seed, groups=400)
    split = split_groups(images, DataConfig(holdout=0.25, folds=3), seed)
    assert len(set(images.groups[split.holdout])) == 100
    assert len(set(images.groups[split.train])) == pytest.approx(200, abs=1)


def test_folds_take_turns_in_validating_and_share_the_holdout():
    images = draw_images(0)
    splits = [split_groups(images, DataConfig(fold=fold), seed=0) for fold in range(5)]
    assert sorted(np.concatenate([split.valid for split in splits])) == sorted({*splits[0].train, *splits[0].valid})
    assert all((split.holdout == splits[0].holdout).all() for split in splits)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    images = draw_images(0)
    first, again, other = (split_groups(images, DataConfig(), seed) for seed in (1, 1, 2))
    assert (first.part == again.part).all() and first.hash == again.hash
    assert (first.part != other.part).any() and first.hash != other.hash


def test_the_hash_depends_on_images_and_labels_but_not_on_which_fold_validates():
    images = draw_images(0)
    other = renamed(images, 0, "another.jpg")
    hashes = [split_groups(changed, DataConfig(), seed=0).hash for changed in (images, relabelled(images, 0), other)]
    assert len(set(hashes)) == 3
    assert {split_groups(images, DataConfig(fold=fold), seed=0).hash for fold in range(NO_FOLD, 5)} == {hashes[0]}


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_without_a_validation_split_all_but_the_same_holdout_train(seed):
    images = draw_images(seed)
    some, refit = (split_groups(images, DataConfig(fold=fold), seed) for fold in (0, NO_FOLD))
    assert len(refit.valid) == 0
    assert refit.holdout.tolist() == some.holdout.tolist() and (refit.part == some.part).all()
    assert sorted([*refit.train, *refit.holdout]) == list(range(len(images)))
    again = read_split(split_table(images, some, digests_of(images)), images, digests_of(images), NO_FOLD)
    assert (again.part == refit.part).all() and (again.fold, again.hash) == (NO_FOLD, some.hash)


def few(counts: Sequence[int]) -> Images:
    """So many groups of each class, one image each, in random order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))[:, None]
    scheme = Scheme((Classes("kind", tuple(f"kind {number:02d}" for number in range(len(counts)))),))
    return Images(Path("root"), tuple(f"{index}.jpg" for index in range(len(labels))), np.arange(len(labels)), labels, scheme)


@pytest.mark.parametrize("counts", [(60, 40, 1), (60, 40, 3, 2), (30, 2, 2, 2), (15,) * 12, (6,) * 120, (7, 7, 7), (4,) * 40, (2,) * 30])
@pytest.mark.parametrize("settings", [{}, {"folds": 2, "holdout": 0.05}, {"folds": 3, "holdout": 0.4}], ids=str)
def test_rare_classes_refuse_no_data_and_every_part_has_its_share(counts, settings):
    images, sides = few(counts), DataConfig(**settings)
    split = split_groups(images, sides, seed=0)
    assert len(split.holdout) == math.ceil(sides.holdout * len(images))
    sizes = np.bincount(split.part[split.part != HOLDOUT], minlength=sides.folds)
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= len(counts)
    common = [number for number, count in enumerate(counts) if count > 4 * sides.folds]
    for number in common:
        assert set(split.part[images.labels[:, 0] == number]) >= set(range(sides.folds))


def test_rare_classes_are_named_with_their_number_of_groups():
    assert rare_classes(few((60, 40, 1, 5)), parts=6) == ["kind 02 (1)", "kind 03 (5)"]
    assert rare_classes(few((60, 40)), parts=6) == []


@pytest.mark.parametrize(("counts", "folds"), [((1, 1), 5), ((2, 2), 5), ((1, 1, 1), 2), ((1, 1), 2)])
def test_too_few_groups_are_refused_with_what_can_be_done(counts, folds):
    with pytest.raises(DataError, match=f"^{sum(counts)} groups ") as caught:
        split_groups(few(counts), DataConfig(folds=folds), seed=0)
    assert ("data/folds=2" in str(caught.value)) == (folds > 2 and sum(counts) > 2) and "data/cuts" not in str(caught.value)


def test_a_fold_that_there_is_not_is_refused():
    with pytest.raises(DataError, match="data/fold is 5.* 0 to 4"):
        split_groups(draw_images(0), DataConfig(fold=5), seed=0)


def test_classes_without_images_are_named():
    images = draw_images(0)
    keep = images.labels[:, 2] < 2
    young = replace(images, ids=images.ids[: keep.sum()], groups=images.groups[keep], labels=images.labels[keep])
    assert absent_classes(images) == []
    assert absent_classes(young) == [name for name in SCHEME.class_names() if name.endswith(">=60")]


def test_the_order_of_the_images_does_not_change_the_hash_of_a_split():
    images = draw_images(0)
    backwards = taken(images, np.arange(len(images))[::-1])
    split = split_groups(images, DataConfig(), seed=0)
    turned = split_groups(backwards, DataConfig(), seed=0)
    assert (turned.part == split.part[::-1]).all() and turned.hash == split.hash


# The table, which is a manifest of the images as well


def taken(images: Images, chosen: np.ndarray) -> Images:
    """Some of the images, in the given order."""
    return replace(
        images,
        ids=tuple(images.ids[index] for index in chosen),
        groups=images.groups[chosen],
        labels=images.labels[chosen],
    )


def digests_of(images: Images) -> dict[str, str]:
    return {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in images.ids}


def made(images: Images, seed: int = 0, fold: int = 0) -> tuple[Split, bytes]:
    split = split_groups(images, DataConfig(fold=fold), seed)
    return split, split_table(images, split, digests_of(images))


def refused(table: bytes, images: Images, digests: dict[str, str] | None = None, fold: int = 0) -> str:
    with pytest.raises(DataError) as caught:
        read_split(table, images, digests_of(images) if digests is None else digests, fold)
    return str(caught.value)


def differences(words: str) -> list[str]:
    """The lines between the first, which says what is wrong, and the last, which says how to fix it."""
    first, *lines, last = words.splitlines()
    assert first.endswith(":") and last
    return lines


def test_the_table_says_who_is_in_which_part(images, split):
    table = pd.read_csv(io.BytesIO(split_table(images, split, digests_of(images))), dtype={"sha256": str})
    assert list(table.columns) == ["photo", "person", "class", "part", "sha256"]
    assert table["photo"].tolist() == list(images.ids)
    assert table["person"].tolist() == images.groups.tolist()
    assert table["class"].tolist() == [images.scheme.class_names()[label] for label in images.scheme.joint(images.labels)]
    assert table["sha256"].tolist() == list(digests_of(images).values())
    assert set(table["photo"][table["part"] == "holdout"]) == {images.ids[index] for index in split.holdout}
    assert set(table["photo"][table["part"] == "fold 0"]) == {images.ids[index] for index in split.valid}
    assert (table.groupby("person")["part"].nunique() == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_split_is_read_back_whatever_the_order_of_rows_and_images(seed):
    rng = np.random.default_rng(seed)
    images, fold = draw_images(seed), seed % 5
    split, table = made(images, seed, fold)
    header, *rows = table.decode().splitlines()
    shuffled = "\n".join([header, *rng.permutation(rows)]).encode()
    order = rng.permutation(len(images))
    for content, chosen in ((table, np.arange(len(images))), (shuffled, np.arange(len(images))), (shuffled, order)):
        again = read_split(content, taken(images, chosen), digests_of(images), fold)
        assert (again.part == split.part[chosen]).all() and (again.fold, again.hash) == (fold, split.hash)


def test_groups_may_be_numbered_anew():
    images = draw_images(0)
    split, table = made(images)
    numbers = np.random.default_rng(0).permutation(1000)
    assert read_split(table, replace(images, groups=numbers[images.groups]), digests_of(images), 0).hash == split.hash


@pytest.mark.parametrize(
    "name", ["a, b/mask1.jpg", 'say "a"/mask1.jpg', "two\nlines/mask1.jpg", "홍길동/mask1.jpg", " a /mask1.jpg", "holdout"]
)
def test_images_of_every_name_are_read_back(name):
    images = draw_images(0)
    images = replace(images, ids=(name, *images.ids[1:]))
    split, table = made(images)
    assert read_split(table, images, digests_of(images), 0).hash == split.hash
    assert pd.read_csv(io.BytesIO(table))["photo"][0] == name


def test_a_part_that_was_changed_in_the_table_gives_another_hash():
    images = draw_images(0)
    split, table = made(images)
    assert read_split(table.replace(b"holdout", b"fold 1", 1), images, digests_of(images), 0).hash != split.hash


def relabelled(images: Images, index: int) -> Images:
    labels = images.labels.copy()
    labels[index] = (labels[index] + 1) % images.scheme.sizes
    return replace(images, labels=labels)


def moved(images: Images, index: int, group: int) -> Images:
    groups = images.groups.copy()
    groups[index] = group
    return replace(images, groups=groups)


def renamed(images: Images, index: int, name: str) -> Images:
    return replace(images, ids=(*images.ids[:index], name, *images.ids[index + 1 :]))


def class_of(images: Images, index: int) -> str:
    return SCHEME.class_names()[SCHEME.joint(images.labels)[index]]


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_everything_that_differs_is_named_at_once(seed):
    rng = np.random.default_rng(seed)
    images = draw_images(seed)
    _, table = made(images)
    gone, added, other, changed, touched = rng.choice(len(images), 5, replace=False)
    names = images.ids
    today = relabelled(renamed(images, added, "new/mask1.jpg"), other)
    today = taken(today, np.delete(np.arange(len(images)), gone))
    digests = digests_of(images) | {"new/mask1.jpg": digests_of(images)[names[added]], names[changed]: "0123456789abcdef"}
    expected = [
        ("  missing", f", 2: {'; '.join(sorted([names[gone], names[added]]))}"),
        ("  new, 1: new/mask1.jpg",),
        ("  of another class, 1: ", f"{names[other]} (was {class_of(images, other)}; is {class_of(relabelled(images, other), other)})"),
        ("  of other content, 1: ", names[changed]),
    ]
    assert not mistaken(differences(refused(table, today, digests)), expected)


def companions(images: Images) -> dict[str, str]:
    """The first image by name of each image's group."""
    return {name: min(np.array(images.ids)[images.groups == group]) for name, group in zip(images.ids, images.groups, strict=True)}


def lines_of_groups(images: Images, today: Images) -> list[str]:
    was, now = companions(images), companions(today)
    names = [f"{name} (was one with {was[name]}; is one with {now[name]})" for name in sorted(images.ids) if was[name] != now[name]]
    more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
    return [f"  of another group, {len(names)}: {'; '.join([*names[:MOST], *more])}"]


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_an_image_that_went_over_to_another_group_is_a_difference(seed):
    images = draw_images(seed)
    index = np.random.default_rng(seed).integers(len(images))
    for group in (images.groups[index] + 1, 1000):
        today = moved(images, index, group)
        assert differences(refused(made(images)[1], today)) == lines_of_groups(images, today)


def test_two_groups_who_became_one_are_a_difference():
    images = draw_images(0)
    today = replace(images, groups=np.where(images.groups == 7, 3, images.groups))
    assert differences(refused(made(images)[1], today)) == lines_of_groups(images, today)


def test_many_differences_are_counted_and_ten_of_them_named():
    images = draw_images(0)
    _, table = made(images)
    (line,) = differences(refused(table, taken(images, np.arange(25, len(images)))))
    listed = sorted(images.ids[:25])
    assert line.startswith("  missing") and line.endswith(f", 25: {'; '.join(listed[:MOST])}; and 15 more")


def edited(table: bytes, edit: Callable[[list[list[str]]], object]) -> bytes:
    rows = list(csv.reader(io.StringIO(table.decode(), newline="")))
    edit(rows)
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda rows: rows.clear(), "columns photo, person, class, part, sha256"),
        (lambda rows: rows.pop(0), "columns photo, person, class, part, sha256"),
        (lambda rows: [row.pop() for row in rows], "columns photo, person, class, part, sha256"),
        (lambda rows: rows[3].pop(), "row 3 "),
        (lambda rows: rows[3].append("more"), "row 3 "),
        (lambda rows: rows.insert(3, []), "row 3 "),
        (lambda rows: rows[3].__setitem__(0, ""), "row 3 "),
        (lambda rows: rows[3].__setitem__(1, "Ann"), "row 3 "),
        (lambda rows: rows[3].__setitem__(3, "fold"), "row 3 "),
        (lambda rows: rows[3].__setitem__(4, "ABC"), "row 3 "),
        (lambda rows: [row.pop() for row in rows[1:13]], "row 10; and 2 more "),
        (lambda rows: rows.append(rows[1]), "duplicate images, "),
    ],
)
def test_a_damaged_table_is_refused_with_what_is_wrong_with_it(edit, words):
    images = draw_images(0)
    said = refused(edited(made(images)[1], edit), images)
    assert said.startswith("split.csv of the run is damaged: ") and words in said
    assert "from a backup" in said


@pytest.mark.parametrize("content", [b"\xff\xfe", b'photo,person,class,part,sha256\n"1/0.jpg', b"x" * 200_000])
def test_what_is_no_table_is_refused(content):
    assert refused(content, draw_images(0)).startswith("split.csv of the run is damaged: ")


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_a_table_that_was_cut_off_is_refused(seed):
    images = draw_images(seed)
    _, table = made(images)
    said = refused(table[: np.random.default_rng(seed).integers(len(table) - 1)], images)
    # Cut between two rows it is a table still, in which images are missing.
    assert said.startswith("split.csv of the run is damaged: ") or said.splitlines()[1].startswith("  new, ")


def test_a_fold_that_the_run_does_not_have_is_refused():
    images = draw_images(0)
    assert not missing(refused(made(images)[1], images, fold=5), "data/fold is 5", "split.csv")
