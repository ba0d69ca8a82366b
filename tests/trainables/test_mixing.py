import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import nightly_after
from trainables.config import section
from trainables.mixing import MIXERS, Fellows, build_mixer, cutmix, cutmix_vertical, mix_batch, mix_targets, mixup, same_class_partner

MIXING = [name for name in MIXERS if name != "none"]
CLASSES = [6, 3]


def batch(seed, batch_size=8, width=10):
    """Images (n, 3, 5, width), class ids per head and a partner (n,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch_size, 3, 5, width, generator=generator)
    targets = [torch.randint(count, (batch_size,), generator=generator) for count in CLASSES]
    return images, targets, torch.randperm(batch_size, generator=generator)


def halves(batch_size=2, height=5, width=64):
    """Images filled with 0 and 1 in turn, which is also their class."""
    ids = torch.arange(batch_size) % 2
    return ids.float().reshape(batch_size, 1, 1, 1).expand(batch_size, 3, height, width).contiguous(), ids


def mix(mixer, images, targets, rng, numbers=None, classes=CLASSES):
    """Images and targets of `mix_batch`, for tests that ask nothing of the numbers."""
    unknown = torch.full((len(images),), torch.nan)
    return mix_batch(mixer, images, targets, unknown if numbers is None else numbers, classes, rng)[:2]


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
@pytest.mark.parametrize("kept", [0.0, 0.31, 0.5, 1.0])
def test_cutmix_vertical_takes_the_columns_right_of_the_cut_from_the_partner(seed, kept):
    images, _, partner = batch(seed)
    mixed, kept_area = cutmix_vertical(images, partner, kept)
    for image in range(len(images)):
        for column in range(10):
            source = image if column < round(kept * 10) else partner[image]
            assert torch.equal(mixed[image, :, :, column], images[source, :, :, column])
    assert kept_area == round(kept * 10) / 10


@pytest.mark.parametrize("width", [7, 64, 225])
@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_the_kept_area_of_cutmix_vertical_is_the_measured_area(width, seed):
    kept = np.random.default_rng(seed).uniform()
    images = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 5, width)  # an image of zeros and an image of ones
    mixed, kept_area = cutmix_vertical(images, torch.tensor([1, 0]), kept)
    assert (mixed[0] == 0).double().mean().item() == pytest.approx(kept_area)
    assert (mixed[1] == 1).double().mean().item() == pytest.approx(kept_area)
    assert abs(kept_area - kept) <= 0.5 / width


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_mixup_blends_each_image_with_its_partner(seed):
    images, _, partner = batch(seed)
    mixed, kept_area = mixup(images, partner, 0.7)
    for image in range(len(images)):
        torch.testing.assert_close(mixed[image], 0.7 * images[image] + 0.3 * images[partner[image]])
    assert kept_area == 0.7


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_mixer_leaves_its_input_alone_and_keeps_dtype_and_memory_format(name, dtype, memory_format):
    images, _, partner = batch(0)
    images = (images.abs() * 50).to(dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    mixed, _ = build_mixer(section("mix", name=name)).mix(images, partner, np.random.default_rng(0))
    assert torch.equal(images, before)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(mixed[partner == torch.arange(8)], images[partner == torch.arange(8)])


def test_mixup_of_integer_pixels_rounds_to_the_nearest():
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    mixed, _ = mixup(images, torch.tensor([1, 0]), 0.25)
    assert mixed.flatten().tolist() == [191, 64]  # 191.25 and 63.75


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_an_image_mixed_with_itself_is_unchanged(name, seed):
    images, targets, _ = batch(seed)
    mixer, itself = build_mixer(section("mix", name=name)), torch.arange(len(images))
    mixed, kept_area = mixer.mix(images, itself, np.random.default_rng(seed))
    rows = F.one_hot(targets[0], CLASSES[0]).float()
    assert torch.equal(mixed, images)
    assert torch.equal(mix_targets(rows, itself, kept_area), rows)


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_mixed_targets_give_each_of_the_two_images_its_area(seed):
    _, targets, partner = batch(seed)
    rows = F.one_hot(targets[0], CLASSES[0]).float()
    for image, row in enumerate(mix_targets(rows, partner, 0.7)):
        expected = torch.zeros(CLASSES[0])
        expected[targets[0][image]] += 0.7
        expected[targets[0][partner[image]]] += 0.3
        torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_every_head_of_a_mixed_batch_gets_rows_that_sum_to_1_and_keep_the_count_of_each_class(name, seed):
    images, targets, _ = batch(seed)
    _, rows = mix(build_mixer(section("mix", name=name, prob=1.0)), images, targets, np.random.default_rng(seed))
    for ids, mixed, count in zip(targets, rows, CLASSES, strict=True):
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(len(images)))
        torch.testing.assert_close(mixed.sum(dim=0), torch.bincount(ids, minlength=count).float())


@pytest.mark.parametrize("name", ["mixup", "cutmix", "cutmix_vertical"])
@pytest.mark.parametrize("seed", nightly_after(2, range(20)))
def test_the_mean_pixel_the_target_and_the_number_of_a_mixed_image_follow_the_same_share(name, seed):
    images, ids = halves(batch_size=8, height=21)
    mixer = build_mixer(
        section("mix", name=name, prob=1.0, **({"alpha": 1.0} if name in ("mixup", "cutmix") else {"low": 0.0, "high": 1.0}))
    )
    mixed, (rows,), numbers = mix_batch(mixer, images, [ids], ids * 40.0 + 10, [2], np.random.default_rng(seed))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), rows[:, 1])
    torch.testing.assert_close(numbers, 10 + 40 * rows[:, 1])


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_a_number_mixed_with_an_unknown_one_is_unknown(name, seed):
    images, targets, _ = batch(seed)
    targets = [torch.zeros_like(ids) for ids in targets]  # so that each image has fellows
    mixer, numbers = build_mixer(section("mix", name=name, prob=1.0)), torch.arange(8.0).where(torch.arange(8) % 3 > 0, torch.nan)
    rng = np.random.default_rng(seed)
    rng.random()  # which decides that the batch is mixed
    partner = torch.from_numpy(mixer.pair(targets, rng))
    _, _, mixed = mix_batch(mixer, images, targets, numbers, CLASSES, np.random.default_rng(seed))
    assert torch.equal(mixed.isnan(), numbers.isnan() | numbers[partner].isnan())


@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_soft_targets_are_mixed_as_they_are(seed):
    images, (ids, _), _ = batch(seed)
    soft = torch.rand(8, 3, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)
    mixer = build_mixer(section("mix", name="cutmix_vertical", prob=1.0, low=0.5, high=0.5))
    _, (_, rows) = mix(mixer, images, [ids, soft], np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    rng.random()
    torch.testing.assert_close(rows, 0.5 * soft + 0.5 * soft[mixer.pair([ids, soft], rng)])


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_the_share_of_batches_that_are_mixed_is_prob(prob):
    images, targets, _ = batch(0, batch_size=2)
    mixer, rng = build_mixer(section("mix", name="mixup", prob=prob)), np.random.default_rng(0)
    mixed = [mix(mixer, images, targets, rng)[0] is not images for _ in range(2000)]
    error = 4 * (prob * (1 - prob) / 2000) ** 0.5
    assert abs(np.mean(mixed) - prob) <= error


@pytest.mark.parametrize("config", [section("mix", name="none"), section("mix", name="mixup", prob=0.0)])
def test_a_batch_that_is_not_mixed_comes_back_untouched(config):
    images, targets, _ = batch(0)
    numbers = torch.arange(8.0)
    same, ids, years = mix_batch(build_mixer(config), images, targets, numbers, CLASSES, np.random.default_rng(0))
    assert same is images and years is numbers
    assert all(one is other for one, other in zip(ids, targets, strict=True))


@pytest.mark.parametrize("name", MIXING)
def test_the_same_generator_mixes_in_the_same_way(name):
    images, targets, _ = batch(0)
    mixer = build_mixer(section("mix", name=name, prob=1.0))
    first, second = (mix(mixer, images, targets, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*pair) for pair in zip(first[1], second[1], strict=True))


def kept_areas(config, images, count=4000) -> list[float]:
    """The shares kept in many batches, measured on the second image, whose pixels are 1."""
    rng, mixer, partner = np.random.default_rng(0), build_mixer(config), torch.tensor([1, 0])
    drawn = []
    for _ in range(count):
        mixed, kept_area = mixer.mix(images, partner, rng)
        assert mixed[1].mean().item() == pytest.approx(kept_area, abs=1e-5)
        assert mixed[0].mean().item() == pytest.approx(1 - kept_area, abs=1e-5)
        drawn.append(kept_area)
    return drawn


@pytest.mark.parametrize("name", ["cutmix_vertical", "cutmix_intra"])
def test_vertical_cuts_are_drawn_evenly_from_low_to_high(name):
    kept = kept_areas(section("mix", name=name, low=0.2, high=0.6), halves(width=1000, height=1)[0])
    assert 0.2 <= min(kept) < 0.21
    assert 0.59 < max(kept) <= 0.6
    assert np.mean(kept) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_draws_with_the_variance_of_a_symmetric_beta(alpha):
    kept = kept_areas(section("mix", name="mixup", alpha=alpha), halves(width=1, height=1)[0])
    assert np.mean(kept) == pytest.approx(0.5, abs=0.03)
    assert np.var(kept) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
@pytest.mark.parametrize("kept", [0.0, 0.31, 0.5, 0.9, 1.0])
def test_cutmix_takes_one_box_from_the_partner_whose_share_is_exact(seed, kept):
    images, _, partner = batch(seed, width=17)
    mixed, kept_area = cutmix(images, partner, kept, tuple(np.random.default_rng(seed).random(2)))
    theirs = (mixed == images[partner]) & (images != images[partner])
    boxes = theirs[partner != torch.arange(8)].all(dim=1)
    assert (boxes == boxes[0]).all()
    rows, columns = boxes[0].any(dim=1), boxes[0].any(dim=0)
    assert torch.equal(boxes[0], rows[:, None] & columns[None, :])
    for flags in (rows, columns):
        assert (flags.diff() != 0).sum() <= 2  # in one piece
    assert boxes[0].double().mean().item() == pytest.approx(1 - kept_area)
    assert torch.equal(torch.where(boxes[0], images[partner], images), mixed)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_box_inside_the_image_covers_what_is_not_kept_and_one_at_the_border_less(kept):
    images, partner = halves(height=100, width=200)[0], torch.tensor([1, 0])
    middle, corner = (cutmix(images, partner, kept, place)[1] for place in ((0.5, 0.5), (0.0, 1.0)))
    assert middle == pytest.approx(kept, abs=0.01)
    assert corner == pytest.approx(1 - (1 - kept) / 4, abs=0.01)


def test_cutmix_boxes_lie_anywhere_and_have_areas_of_a_beta():
    images = halves(height=40, width=40)[0]
    rng, mixer = np.random.default_rng(0), build_mixer(section("mix", name="cutmix", alpha=1.0))
    covered = torch.stack([mixer.mix(images, torch.tensor([1, 0]), rng)[0][0, 0] for _ in range(4000)]).mean(dim=0)
    assert covered.min() > 0.1  # the corners are taken too
    assert covered[20, 20] > covered[0, 0]
    kept = kept_areas(section("mix", name="cutmix", alpha=1.0), images)
    # A box with a random middle, of sides r = sqrt(u) with u even: on average (1 - r / 4) ** 2 of it lies inside.
    sides = np.sqrt((np.arange(10000) + 0.5) / 10000)
    assert np.mean(kept) == pytest.approx(1 - np.mean((sides * (1 - sides / 4)) ** 2), abs=0.01)


@pytest.mark.parametrize("seed", nightly_after(2, range(20)))
def test_cutmix_intra_pairs_each_image_with_another_of_its_class_in_every_head_or_else_with_itself(seed):
    _, targets, _ = batch(seed, batch_size=20)
    partner = same_class_partner(targets, np.random.default_rng(seed))
    assert sorted(partner) == list(range(20))
    kinds = list(zip(*(ids.tolist() for ids in targets), strict=True))
    for image, other in enumerate(partner):
        assert kinds[image] == kinds[other]
        assert (image == other) == (kinds.count(kinds[image]) == 1)


def test_over_many_batches_every_fellow_is_a_partner_equally_often():
    ids = torch.tensor([0, 1, 0, 0, 0])
    seen = sum(np.bincount(same_class_partner([ids], np.random.default_rng(seed))[0:1], minlength=5) for seed in range(3000)) / 3000
    np.testing.assert_allclose(seen, [0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.04)


@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_the_fellows_of_a_soft_target_are_those_of_its_most_probable_class(seed):
    _, targets, _ = batch(seed, batch_size=20)
    soft = [F.one_hot(ids, count) * 0.6 + 0.4 / count for ids, count in zip(targets, CLASSES, strict=True)]
    np.testing.assert_array_equal(
        same_class_partner(soft, np.random.default_rng(seed)), same_class_partner(targets, np.random.default_rng(seed))
    )


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_cutmix_intra_changes_images_and_leaves_the_classes_as_they_are(seed):
    images, targets, _ = batch(seed, batch_size=40)
    mixed, rows = mix(build_mixer(section("mix", name="cutmix_intra", prob=1.0)), images, targets, np.random.default_rng(seed))
    for ids, row, count in zip(targets, rows, CLASSES, strict=True):
        assert torch.equal(row, F.one_hot(ids, count).float())
    partner = same_class_partner(targets, np.random.default_rng(seed))
    with_partner = torch.from_numpy(partner) != torch.arange(40)
    assert torch.equal((mixed != images).flatten(1).any(dim=1), with_partner)


def test_a_low_above_high_is_refused():
    with pytest.raises(ValueError, match="mix/low is 0.7.*mix/high .0.54."):
        section("mix", name="cutmix_vertical", low=0.7)


# Partners from all that train


@pytest.mark.parametrize("seed", nightly_after(1, range(5)))
def test_fellows_are_all_others_of_a_class_alike_and_an_image_without_one_is_its_own(seed):
    rng = np.random.default_rng(seed)
    targets = [rng.integers(3, size=40), np.eye(2, dtype=np.float32)[rng.integers(2, size=40)]]
    targets[0][7] = 3  # alone
    kind = list(zip(targets[0].tolist(), targets[1].argmax(axis=1).tolist(), strict=True))
    fellows, seen = Fellows.of(targets), np.zeros((40, 40))
    for _ in range(600):
        seen[np.arange(40), fellows.draw(np.arange(40), rng)] += 1 / 600
    for image, row in enumerate(seen):
        others = [other for other in range(40) if kind[other] == kind[image] and other != image] or [image]
        assert set(np.flatnonzero(row)) == set(others)
        np.testing.assert_allclose(row[others], 1 / len(others), atol=0.12)


def test_partners_that_come_with_a_batch_are_mixed_in_and_no_partners_leave_it_alone():
    mixer = build_mixer(section("mix", name="cutmix_intra", partner="train", prob=0.5, low=0.5, high=0.5))
    ids, numbers = torch.tensor([0, 2]), torch.tensor([10.0, 30.0])
    batch = torch.zeros(2, 3, 4, 4), [ids], numbers
    alone = mix_batch(mixer, *batch, [3], np.random.default_rng(0))
    assert torch.equal(alone[0], batch[0]) and torch.equal(alone[1][0], ids)
    partners = torch.arange(1.0, 3.0)[:, None, None, None].expand(2, 3, 4, 4), [ids], torch.tensor([20.0, 40.0])
    images, (rows,), mixed = mix_batch(mixer, *batch, [3], np.random.default_rng(0), partners)
    assert (images[..., :2] == 0).all() and (images[0, ..., 2:] == 1).all() and (images[1, ..., 2:] == 2).all()
    assert torch.equal(rows, F.one_hot(ids, 3).float()) and mixed.tolist() == [15.0, 35.0]
