import numpy as np
import pytest

from trainables.config import section
from trainables.data.sampling import SAMPLERS, build_sampler
from trainables.data.training import TrainingPhotos
from trainables.registry import ConfigError


def photos_of(classes, people=None, weights=None) -> TrainingPhotos:
    count = len(classes)
    return TrainingPhotos(
        ids=np.array([f"photo{number}" for number in range(count)], dtype=object),
        source=np.zeros(count, dtype=int),
        people=np.arange(count) if people is None else np.asarray(people),
        classes=np.asarray(classes),
        targets=(np.asarray(classes),),
        numbers=np.full(count, np.nan, dtype=np.float32),
        weights=np.ones(count) if weights is None else np.asarray(weights, dtype=float),
    )


def some_photos(seed) -> TrainingPhotos:
    """Photos of uneven classes, of which some numbers are missing, and of people with several photos each."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(rng.permutation(20)[:5], rng.integers(1, 30, size=5)))
    return photos_of(classes, people=rng.integers(20, size=len(classes)), weights=rng.uniform(0.5, 3, size=len(classes)))


def draw(name, photos, seed=0, **settings) -> np.ndarray:
    return build_sampler(section("sampler", name=name, **settings)).draw(photos, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_epoch_shows_as_many_photos_as_the_sampler_promised_drawn_from_its_generator_alone(name, seed):
    photos, sampler = some_photos(seed), build_sampler(section("sampler", name=name))
    first, again, other = (sampler.draw(photos, np.random.default_rng(number)) for number in (seed, seed, seed + 100))
    assert len(first) == len(other) == sampler.size(photos)
    assert set(first) <= set(range(len(photos)))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_leaves_the_photos_in_their_order(name):
    photos = photos_of(np.repeat([0, 1, 2], 40), people=np.arange(120))
    drawn = draw(name, photos)
    assert (np.diff(drawn) > 0).mean() == pytest.approx(0.5, abs=0.15)
    assert (np.diff(photos.classes[drawn]) == 0).mean() == pytest.approx(1 / 3, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_shuffle_shows_every_photo_once(seed):
    photos = some_photos(seed)
    assert sorted(draw("shuffle", photos)) == list(range(len(photos)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weighted_draws_a_class_in_the_share_that_power_gives(power):
    counts = np.array([800, 150, 50])
    photos = photos_of(np.repeat([0, 4, 2], counts))
    drawn = np.concatenate([photos.classes[draw("weighted", photos, seed, power=power)] for seed in range(20)])
    expected = counts ** (1 - power) / (counts ** (1 - power)).sum()
    np.testing.assert_allclose([(drawn == one).mean() for one in (0, 4, 2)], expected, atol=0.01)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_weighted_shows_a_photo_of_twice_the_weight_twice_as_often_as_its_fellows(power):
    photos = photos_of(np.repeat([0, 1], [30, 10]), weights=np.where(np.arange(40) % 10 == 0, 2.0, 1.0))
    seen = sum(np.bincount(draw("weighted", photos, seed, power=power), minlength=40) for seed in range(2000))
    for members in (np.arange(30), np.arange(30, 40)):
        heavy = photos.weights[members] == 2
        assert seen[members][heavy].mean() / seen[members][~heavy].mean() == pytest.approx(2, rel=0.06)


def test_weighted_never_shows_a_photo_of_weight_0():
    photos = photos_of([0, 0, 0, 1, 1, 1], weights=[1, 0, 1, 0, 1, 1])
    assert set(np.concatenate([draw("weighted", photos, seed) for seed in range(50)])) == {0, 2, 4, 5}


@pytest.mark.parametrize("seed", range(20))
def test_oversample_shows_each_class_as_often_as_the_largest_and_fellows_equally_often_but_for_one_time(seed):
    photos = some_photos(seed)
    seen = np.bincount(draw("oversample", photos, seed), minlength=len(photos))
    largest = max(np.bincount(photos.classes))
    for one in set(photos.classes):
        of_class = seen[photos.classes == one]
        assert of_class.sum() == largest
        assert of_class.min() == largest // len(of_class) and of_class.max() <= of_class.min() + 1


def test_what_oversample_repeats_once_more_changes_with_the_epoch():
    photos = photos_of(np.repeat([0, 1], [10, 4]))
    repeated = {int(photo) for seed in range(40) for photo in np.flatnonzero(np.bincount(draw("oversample", photos, seed)) == 3)}
    assert repeated == {10, 11, 12, 13}


@pytest.mark.parametrize("seed", range(20))
def test_undersample_shows_different_photos_of_each_class_as_often_as_the_smallest_has(seed):
    photos = some_photos(seed)
    drawn = draw("undersample", photos, seed)
    smallest = min(np.bincount(photos.classes)[np.unique(photos.classes)])
    assert len(drawn) == len(set(drawn))
    assert {one: (photos.classes[drawn] == one).sum() for one in set(photos.classes)} == dict.fromkeys(set(photos.classes), smallest)


def test_over_many_epochs_undersample_shows_every_photo():
    photos = photos_of(np.repeat([0, 1], [30, 5]))
    assert set(np.concatenate([draw("undersample", photos, seed) for seed in range(60)])) == set(range(35))


@pytest.mark.parametrize("seed", range(20))
def test_one_per_person_shows_each_person_once(seed):
    photos = some_photos(seed)
    assert sorted(photos.people[draw("one_per_person", photos, seed)]) == sorted(set(photos.people))


def test_one_per_person_takes_each_photo_of_a_person_equally_often():
    photos = photos_of([0, 1, 2, 0, 1, 2, 0], people=[5, 5, 5, 5, 8, 8, 9])
    seen = sum(np.bincount(draw("one_per_person", photos, seed), minlength=7) for seed in range(2000)) / 2000
    np.testing.assert_allclose(seen, [1 / 4] * 4 + [1 / 2] * 2 + [1], atol=0.04)


def test_an_unknown_sampler_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="sampler/name: 'weigthed' does not exist; did you mean weighted"):
        build_sampler(section("sampler", name="weigthed"))
