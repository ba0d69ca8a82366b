import numpy as np
import pytest

from tests.conftest import nightly_after
from trainables.config import section
from trainables.data.sampling import SAMPLERS, build_sampler
from trainables.data.training import TrainingImages


def images_of(classes, groups=None, weights=None) -> TrainingImages:
    count = len(classes)
    return TrainingImages(
        ids=np.array([f"photo{number}" for number in range(count)], dtype=object),
        source=np.zeros(count, dtype=int),
        groups=np.arange(count) if groups is None else np.asarray(groups),
        classes=np.asarray(classes),
        targets=(np.asarray(classes),),
        numbers=np.full(count, np.nan, dtype=np.float32),
        weights=np.ones(count) if weights is None else np.asarray(weights, dtype=float),
    )


def some_images(seed) -> TrainingImages:
    """Images of uneven classes, of which some numbers are missing, and of groups with several images each."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(rng.permutation(20)[:5], rng.integers(1, 30, size=5)))
    return images_of(classes, groups=rng.integers(20, size=len(classes)), weights=rng.uniform(0.5, 3, size=len(classes)))


def draw(name, images, seed=0, **settings) -> np.ndarray:
    return build_sampler(section("sampler", name=name, **settings)).draw(images, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_epoch_shows_as_many_images_as_the_sampler_promised_drawn_from_its_generator_alone(name, seed):
    images, sampler = some_images(seed), build_sampler(section("sampler", name=name))
    first, again, other = (sampler.draw(images, np.random.default_rng(number)) for number in (seed, seed, seed + 100))
    assert len(first) == len(other) == sampler.size(images)
    assert set(first) <= set(range(len(images)))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_leaves_the_images_in_their_order(name):
    images = images_of(np.repeat([0, 1, 2], 40), groups=np.arange(120))
    drawn = draw(name, images)
    assert (np.diff(drawn) > 0).mean() == pytest.approx(0.5, abs=0.15)
    assert (np.diff(images.classes[drawn]) == 0).mean() == pytest.approx(1 / 3, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_shuffle_shows_every_image_once(seed):
    images = some_images(seed)
    assert sorted(draw("shuffle", images)) == list(range(len(images)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weighted_draws_a_class_in_the_share_that_power_gives(power):
    counts = np.array([800, 150, 50])
    images = images_of(np.repeat([0, 4, 2], counts))
    drawn = np.concatenate([images.classes[draw("weighted", images, seed, power=power)] for seed in range(20)])
    expected = counts ** (1 - power) / (counts ** (1 - power)).sum()
    np.testing.assert_allclose([(drawn == one).mean() for one in (0, 4, 2)], expected, atol=0.01)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_weighted_shows_an_image_of_twice_the_weight_twice_as_often_as_its_fellows(power):
    images = images_of(np.repeat([0, 1], [30, 10]), weights=np.where(np.arange(40) % 10 == 0, 2.0, 1.0))
    seen = sum(np.bincount(draw("weighted", images, seed, power=power), minlength=40) for seed in range(2000))
    for members in (np.arange(30), np.arange(30, 40)):
        heavy = images.weights[members] == 2
        assert seen[members][heavy].mean() / seen[members][~heavy].mean() == pytest.approx(2, rel=0.06)


def test_weighted_never_shows_an_image_of_weight_0():
    images = images_of([0, 0, 0, 1, 1, 1], weights=[1, 0, 1, 0, 1, 1])
    assert set(np.concatenate([draw("weighted", images, seed) for seed in range(50)])) == {0, 2, 4, 5}


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_oversample_shows_each_class_as_often_as_the_largest_and_fellows_equally_often_but_for_one_time(seed):
    images = some_images(seed)
    seen = np.bincount(draw("oversample", images, seed), minlength=len(images))
    largest = max(np.bincount(images.classes))
    for one in set(images.classes):
        of_class = seen[images.classes == one]
        assert of_class.sum() == largest
        assert of_class.min() == largest // len(of_class) and of_class.max() <= of_class.min() + 1


def test_what_oversample_repeats_once_more_changes_with_the_epoch():
    images = images_of(np.repeat([0, 1], [10, 4]))
    repeated = {int(image) for seed in range(40) for image in np.flatnonzero(np.bincount(draw("oversample", images, seed)) == 3)}
    assert repeated == {10, 11, 12, 13}


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_undersample_shows_different_images_of_each_class_as_often_as_the_smallest_has(seed):
    images = some_images(seed)
    drawn = draw("undersample", images, seed)
    smallest = min(np.bincount(images.classes)[np.unique(images.classes)])
    assert len(drawn) == len(set(drawn))
    assert {one: (images.classes[drawn] == one).sum() for one in set(images.classes)} == dict.fromkeys(set(images.classes), smallest)


def test_over_many_epochs_undersample_shows_every_image():
    images = images_of(np.repeat([0, 1], [30, 5]))
    assert set(np.concatenate([draw("undersample", images, seed) for seed in range(60)])) == set(range(35))


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_one_per_person_shows_each_person_once(seed):
    images = some_images(seed)
    assert sorted(images.groups[draw("one_per_person", images, seed)]) == sorted(set(images.groups))


def test_one_per_person_takes_each_image_of_a_person_equally_often():
    images = images_of([0, 1, 2, 0, 1, 2, 0], groups=[5, 5, 5, 5, 8, 8, 9])
    seen = sum(np.bincount(draw("one_per_person", images, seed), minlength=7) for seed in range(2000)) / 2000
    np.testing.assert_allclose(seen, [1 / 4] * 4 + [1 / 2] * 2 + [1], atol=0.04)
