"""What looks odd about labels and images, on arrays: each finding where there is reason for it, and none where there is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.evaluation.look.labels import bins, grids, kinds_of, number_histograms, target_facts
from analysis.evaluation.look.oddities import Context, is_slip, oddities
from analysis.evaluation.look.pixels import Pixels, alike, association, explained, sample
from trainables.data.images import Images, LeftOut
from trainables.data.targets import Classes, Number, Scheme, Tags

RNG = np.random.default_rng(0)
ANIMAL = Classes("animal", ("cat", "dog"))


def make_images(count=60, scheme=Scheme((ANIMAL,)), per_group=1, **changes) -> Images:
    labels = np.tile(np.arange(count)[:, None] % 2, (1, len(scheme.of_kind("classes").targets)))
    images = Images(Path(), tuple(f"{n}.jpg" for n in range(count)), np.arange(count) // per_group, labels, scheme)
    return replace(images, **changes)


def make_pixels(images, **changes) -> Pixels:
    count = len(images)
    return replace(
        Pixels(
            rows=np.arange(count),
            sizes=np.full((count, 2), 100),
            formats=("JPEG",) * count,
            means=RNG.uniform(80, 120, (count, 3)),
            deviations=np.full((count, 3), 40.0),
            prints=RNG.integers(2**63, size=(count, 2)).astype(np.uint64),
            digests=tuple(str(n).encode() for n in range(count)),
            bad={},
        ),
        **changes,
    )


def found(images, pixels=None, folds=2):
    pixels = pixels or make_pixels(images)
    return {one.kind: one for one in oddities(Context(images, pixels, alike(images, pixels)[0], folds, "NAME"))}


def test_nothing_looks_odd_of_plain_images():
    assert found(make_images()) == {}


def test_damaged_blank_tiny_and_strange_images_are_counted_and_named():
    images = make_images(200)
    sizes, deviations, formats = np.full((200, 2), 100), np.full((200, 3), 40.0), ["JPEG"] * 200
    sizes[3], sizes[4], deviations[5], formats[6] = (20, 100), (100, 900), 0.0, "GIF"
    pixels = make_pixels(images, sizes=sizes, deviations=deviations, formats=tuple(formats), bad={"7.jpg": "truncated"})
    told = found(images, pixels)
    assert {kind: one.count for kind, one in told.items()} == {"unreadable": 1, "blank": 1, "tiny": 1, "size": 1, "format": 1}
    named = {kind: one.names[0].split(" ")[0] for kind, one in told.items()}
    assert named == {"unreadable": "7.jpg", "blank": "5.jpg", "tiny": "3.jpg", "size": "4.jpg", "format": "6.jpg"}


def test_copies_with_different_labels_come_first_with_both_labels():
    images = make_images()
    prints = RNG.integers(2**63, size=(60, 2)).astype(np.uint64)
    prints[9] = prints[4]  # cat and dog
    digests = [str(n).encode() for n in range(60)]
    digests[8] = digests[2]  # cat and cat
    pairs, complete = alike(images, make_pixels(images, prints=prints, digests=tuple(digests)))
    assert [(pair.image, pair.other, pair.differ, pair.identical) for pair in pairs] == [
        ("4.jpg", "9.jpg", True, False),
        ("2.jpg", "8.jpg", False, True),
    ]
    assert complete
    told = found(images, make_pixels(images, prints=prints, digests=tuple(digests)))
    assert (
        "cat / dog" in told["alike with different labels"].names[0] and "analysis.suspects" in told["alike with different labels"].command
    )
    assert "analysis.leaks" in told["identical"].command


def test_images_of_one_group_that_look_the_same_are_no_pair_unless_their_files_are():
    images = make_images(per_group=60)
    pixels = make_pixels(images, prints=np.zeros((60, 2), np.uint64))
    assert alike(images, pixels)[0] == []
    (pair,) = alike(images, replace(pixels, digests=(b"same", b"same", *pixels.digests[2:])))[0]
    assert pair.identical and pair.same_group and pair.differ


def test_groups_that_disagree_are_told_where_nearly_all_others_agree():
    labels = (np.arange(60) // 6 % 2)[:, None]
    labels[0] = 1 - labels[0]
    told = found(make_images(per_group=6, labels=labels, names=tuple(f"p{n // 6}" for n in range(60))))
    assert told["group"].count == 1 and told["group"].names == ("p0: cat x 5, dog x 1",)
    assert "group" not in found(make_images(per_group=6)), "where it varies within every group it may"


@pytest.mark.parametrize(
    ("one", "other", "images", "others", "slip"),
    [
        ("Cat", "cat", 50, 50, True),
        ("cat ", "cat", 50, 50, True),
        ("sunflower", "sunflwer", 90, 2, True),
        ("sunflower", "sunlfower", 90, 2, True),
        ("sunflower", "sunflwer", 50, 50, False),
        ("size 10", "size 20", 90, 2, False),
        ("cat", "bat", 90, 2, False),
        ("tulip", "rose", 90, 1, False),
    ],
)
def test_a_slip_is_another_spelling_or_a_rare_one_with_a_letter_wrong(one, other, images, others, slip):
    assert is_slip(one, other, images, others) == is_slip(other, one, others, images) == slip


def test_words_for_not_known_are_told():
    assert found(make_images(scheme=Scheme((Classes("sex", ("F", "?")),))))["unknown"].names == ("'?' (30)",)


def test_numbers_at_a_cut_far_away_and_capped_are_told():
    numbers = np.linspace(20, 58, 60).round()
    numbers[:6], numbers[-1] = 60, 999
    labels = np.digitize(numbers, [30])[:, None]
    images = make_images(scheme=Scheme((Classes.banded("age", (30,)),)), labels=labels, numbers=numbers.astype(np.float32))
    told = found(images)
    assert told["cut"].count == np.isin(numbers, [29, 30]).sum() and "labels/remove=[[29, 30]]" in told["cut"].command
    assert told["number"].names == ("59.jpg (999)",)
    numbers[-1] = 60
    assert found(replace(images, numbers=numbers.astype(np.float32)))["cap"].count == 7


def test_too_few_groups_empty_joint_classes_and_what_reading_left_out_are_told():
    labels = np.stack([np.arange(60) % 2, np.arange(60) % 2], axis=1)
    labels[0] = (0, 1)
    two = Scheme((ANIMAL, Classes("sex", ("F", "M"))))
    told = found(make_images(scheme=two, labels=labels, left_out=(LeftOut("files are missing", ("x.jpg",)),)))
    assert told["few groups"].names == ("cat, M (1)",) and told["empty"].names == ("dog, F",) and told["left out"].names == ("x.jpg",)


def test_a_size_or_format_that_tells_the_class_is_told():
    images = make_images()
    assert "shortcut" in found(images, make_pixels(images, formats=("JPEG", "PNG") * 30))
    assert "shortcut" not in found(images, make_pixels(images, formats=("JPEG", "JPEG", "PNG", "PNG") * 15))


@pytest.mark.parametrize("seed", range(5))
def test_association_and_explained_variance_are_near_0_by_chance_and_1_where_one_tells_the_other(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(4, size=(2, 2000))
    assert association(one, other) < 0.1 and association(one, (one + 1) % 4) > 0.99
    assert explained(rng.normal(size=(2000, 3)), one) < 0.02
    assert explained(np.stack([one, other, other], axis=1).astype(float), one) > 0.99
    assert explained(np.zeros((10, 3)), one[:10]) is None


def test_whenever_reading_ends_it_was_a_random_sample_with_images_of_every_class():
    labels = np.zeros((1000, 1), int)
    labels[990:] = 1
    order = sample(make_images(1000, labels=labels), 100, seed=0, least=8)
    assert len(set(order.tolist())) == 100 and (labels[order[:16], 0] == 1).sum() == 8
    assert sorted(sample(make_images(10), 100, 0, 8).tolist()) == list(range(10))


def test_classes_tags_and_numbers_are_counted_alone_and_together():
    tags = np.array([[True, False], [True, True], [False, False]] * 20)
    scheme = Scheme((ANIMAL, Tags("what", ("sea", "sky")), Number("depth")))
    images = make_images(scheme=scheme, labels=(np.arange(60) // 30)[:, None], tags=tags, numbers=np.arange(60.0))
    pixels = make_pixels(images)
    animal, what, depth = (target_facts(images, target, pixels) for target in images.scheme.targets)
    assert [(one.value, one.images, one.groups, one.read) for one in animal.classes] == [("cat", 30, 30, 30), ("dog", 30, 30, 30)]
    assert [(one.value, one.images) for one in what.classes] == [("sea", 40), ("sky", 20)] and what.without == 20
    assert [one.images for one in depth.classes] == [12] * 5
    (grid,) = [one for one in grids(images) if one.rows_name == "what"]
    assert grid.counts == ((40, 20), (20, 20)), "of tags: how often they come together"
    every, by_animal = number_histograms(images)
    assert sum(every.series[0][1]) == 60 and [name for name, _ in by_animal.series] == ["cat", "dog"]
    assert sum(len(rows) for _, rows in kinds_of(images, images.scheme.targets[2])) == 60


def test_bins_hold_every_number():
    for values in (np.arange(5.0), np.array([3.0]), np.array([0.1, 0.9]), np.arange(1000.0)):
        edges = bins(values)
        assert np.histogram(values, edges)[0].sum() == len(values) and len(edges) <= 32
