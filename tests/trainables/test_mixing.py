import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainables.config import ConfigError, MixConfig, Watched
from trainables.mixing import MIXERS, build_mixer, cutmix_vertical, mix_batch, mix_targets, mixup

MIXING = [name for name in MIXERS if name != "none"]
SETTINGS = {"none": {"name"}, "cutmix_vertical": {"name", "prob", "low", "high"}, "mixup": {"name", "prob", "alpha"}}
CLASSES = [6, 3]


def batch(seed, photos=8, width=10):
    """Images (n, 3, 5, width), class ids per head and a partner (n,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(photos, 3, 5, width, generator=generator)
    targets = [torch.randint(count, (photos,), generator=generator) for count in CLASSES]
    return images, targets, torch.randperm(photos, generator=generator)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kept", [0.0, 0.31, 0.5, 1.0])
def test_cutmix_vertical_takes_the_columns_right_of_the_cut_from_the_partner(seed, kept):
    images, _, partner = batch(seed)
    mixed, kept_area = cutmix_vertical(images, partner, kept)
    for photo in range(len(images)):
        for column in range(10):
            source = photo if column < round(kept * 10) else partner[photo]
            assert torch.equal(mixed[photo, :, :, column], images[source, :, :, column])
    assert kept_area == round(kept * 10) / 10


@pytest.mark.parametrize("width", [7, 64, 225])
@pytest.mark.parametrize("seed", range(10))
def test_the_kept_area_of_cutmix_vertical_is_the_measured_area(width, seed):
    kept = np.random.default_rng(seed).uniform()
    images = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 5, width)  # a photo of zeros and a photo of ones
    mixed, kept_area = cutmix_vertical(images, torch.tensor([1, 0]), kept)
    assert (mixed[0] == 0).double().mean().item() == pytest.approx(kept_area)
    assert (mixed[1] == 1).double().mean().item() == pytest.approx(kept_area)
    assert abs(kept_area - kept) <= 0.5 / width


@pytest.mark.parametrize("seed", range(10))
def test_mixup_blends_each_photo_with_its_partner(seed):
    images, _, partner = batch(seed)
    mixed, kept_area = mixup(images, partner, 0.7)
    for photo in range(len(images)):
        torch.testing.assert_close(mixed[photo], 0.7 * images[photo] + 0.3 * images[partner[photo]])
    assert kept_area == 0.7


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_mixer_leaves_its_input_alone_and_keeps_dtype_and_memory_format(name, dtype, memory_format):
    images, _, partner = batch(0)
    images = (images.abs() * 50).to(dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    mixed, _ = build_mixer(MixConfig(name=name)).apply(images, partner, 0.4)
    assert torch.equal(images, before)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(mixed[partner == torch.arange(8)], images[partner == torch.arange(8)])


def test_mixup_of_integer_pixels_rounds_to_the_nearest():
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    mixed, _ = mixup(images, torch.tensor([1, 0]), 0.25)
    assert mixed.flatten().tolist() == [191, 64]  # 191.25 and 63.75


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("seed", range(10))
def test_a_photo_mixed_with_itself_is_unchanged(name, seed):
    images, targets, _ = batch(seed)
    mixer, itself = build_mixer(MixConfig(name=name)), torch.arange(len(images))
    mixed, kept_area = mixer.apply(images, itself, mixer.draw(np.random.default_rng(seed)))
    rows = F.one_hot(targets[0], CLASSES[0]).float()
    assert torch.equal(mixed, images)
    assert torch.equal(mix_targets(rows, itself, kept_area), rows)


@pytest.mark.parametrize("seed", range(10))
def test_mixed_targets_give_each_of_the_two_photos_its_area(seed):
    _, targets, partner = batch(seed)
    rows = F.one_hot(targets[0], CLASSES[0]).float()
    for photo, row in enumerate(mix_targets(rows, partner, 0.7)):
        expected = torch.zeros(CLASSES[0])
        expected[targets[0][photo]] += 0.7
        expected[targets[0][partner[photo]]] += 0.3
        torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("seed", range(10))
def test_every_head_of_a_mixed_batch_gets_rows_that_sum_to_1_and_keep_the_count_of_each_class(name, seed):
    images, targets, _ = batch(seed)
    _, rows = mix_batch(build_mixer(MixConfig(name=name, prob=1.0)), images, targets, CLASSES, np.random.default_rng(seed))
    for ids, mixed, count in zip(targets, rows, CLASSES, strict=True):
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(len(images)))
        torch.testing.assert_close(mixed.sum(dim=0), torch.bincount(ids, minlength=count).float())


@pytest.mark.parametrize("seed", range(10))
def test_the_mean_pixel_and_the_target_of_a_mixed_photo_tell_the_same_share(seed):
    ids = torch.arange(8) % 2
    images = ids.float().reshape(8, 1, 1, 1).expand(8, 3, 5, 64)  # a photo is filled with its class
    mixer = build_mixer(MixConfig(name="cutmix_vertical", prob=1.0, low=0.0, high=1.0))
    mixed, (rows,) = mix_batch(mixer, images, [ids], [2], np.random.default_rng(seed))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), rows[:, 1])


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_the_share_of_batches_that_are_mixed_is_prob(prob):
    images, targets, _ = batch(0, photos=2)
    mixer, rng = build_mixer(MixConfig(name="mixup", prob=prob)), np.random.default_rng(0)
    mixed = [mix_batch(mixer, images, targets, CLASSES, rng)[1] is not targets for _ in range(2000)]
    error = 4 * (prob * (1 - prob) / 2000) ** 0.5
    assert abs(np.mean(mixed) - prob) <= error


@pytest.mark.parametrize("config", [MixConfig(name="none", prob=1.0), MixConfig(name="mixup", prob=0.0)])
def test_a_batch_that_is_not_mixed_comes_back_untouched(config):
    images, targets, _ = batch(0)
    same, ids = mix_batch(build_mixer(config), images, targets, CLASSES, np.random.default_rng(0))
    assert same is images
    assert ids is targets


@pytest.mark.parametrize("name", MIXING)
def test_the_same_generator_mixes_in_the_same_way(name):
    images, targets, _ = batch(0)
    mixer = build_mixer(MixConfig(name=name, prob=1.0))
    first, second = (mix_batch(mixer, images, targets, CLASSES, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*pair) for pair in zip(first[1], second[1], strict=True))


def test_cutmix_vertical_draws_evenly_from_low_to_high():
    rng, mixer = np.random.default_rng(0), build_mixer(MixConfig(name="cutmix_vertical", low=0.2, high=0.6))
    kept = [mixer.draw(rng) for _ in range(4000)]
    assert 0.2 <= min(kept) < 0.21
    assert 0.59 < max(kept) <= 0.6
    assert np.mean(kept) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_draws_with_the_variance_of_a_symmetric_beta(alpha):
    rng, mixer = np.random.default_rng(0), build_mixer(MixConfig(name="mixup", alpha=alpha))
    kept = [mixer.draw(rng) for _ in range(4000)]
    assert np.mean(kept) == pytest.approx(0.5, abs=0.03)
    assert np.var(kept) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_reads_its_own_settings_when_built_and_none_later(name):
    read = set()
    mixer = build_mixer(Watched(MixConfig(name=name, prob=1.0), read))
    assert read == SETTINGS[name]
    read.clear()
    images, targets, _ = batch(0)
    mix_batch(mixer, images, targets, CLASSES, np.random.default_rng(0))
    assert not read


def test_a_low_above_high_is_refused():
    with pytest.raises(ValueError, match="mix/low is 0.7, above mix/high, which is 0.54"):
        MixConfig(name="cutmix_vertical", low=0.7)


def test_an_unknown_mixer_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="mix/name: 'mixpu' does not exist; did you mean mixup.*cutmix_vertical, mixup, none"):
        build_mixer(MixConfig(name="mixpu"))
