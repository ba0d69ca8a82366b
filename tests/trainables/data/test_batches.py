import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from trainables.config import AugmentConfig, ConfigError, SamplerConfig, Watched
from trainables.data.augment import build_augment
from trainables.data.batches import PhotoError, TrainBatches, ahead, plain_batches
from trainables.data.sampling import SAMPLERS, build_sampler

PHOTOS = 50
VIEW = np.random.default_rng(0).integers(256, size=(PHOTOS + 10, 24, 20, 3), dtype=np.uint8)
ROWS = np.random.default_rng(1).permutation(PHOTOS + 10)[:PHOTOS]
NAMES = [f"person{photo // 7}/shot{photo % 7}.jpg" for photo in range(PHOTOS)]
CLASSES = np.arange(PHOTOS) % 4
NOTHING = AugmentConfig()
EVERYTHING = AugmentConfig(flip=0.5, rotate=20, brightness=0.3, contrast=0.3, erase=0.5)


def batches(*, augment=NOTHING, sampler="shuffle", batch_size=8, seed=0, threads=0, view=VIEW) -> TrainBatches:
    make_augment = partial(build_augment, augment)
    targets = np.stack([np.arange(PHOTOS), CLASSES], axis=1)
    chosen_sampler = build_sampler(SamplerConfig(name=sampler))
    return TrainBatches(view, ROWS, NAMES, targets, CLASSES, batch_size, chosen_sampler, make_augment, seed, threads)


def bytes_of(made) -> list[tuple[bytes, bytes]]:
    return [(images.numpy().tobytes(), targets.numpy().tobytes()) for images, targets in made]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_and_epoch_give_the_same_bytes_with_and_without_threads(sampler):
    alone, helped = (batches(augment=EVERYTHING, sampler=sampler, threads=threads) for threads in (0, 3))
    for epoch in (1, 2):
        assert bytes_of(alone.epoch(epoch)) == bytes_of(helped.epoch(epoch)) == bytes_of(alone.epoch(epoch))


def test_another_seed_or_epoch_gives_other_bytes():
    made = [bytes_of(batches(augment=EVERYTHING, seed=seed).epoch(epoch)) for seed, epoch in ((0, 1), (0, 2), (1, 1))]
    assert len(set(map(tuple, made))) == 3


@pytest.mark.parametrize("batch_size", [1, 7, 8, 50])
def test_shuffled_epochs_show_each_photo_at_most_once_with_its_own_target(batch_size):
    seen = []
    for images, targets in batches(batch_size=batch_size).epoch(1):
        assert images.shape == (batch_size, 24, 20, 3) and images.dtype == torch.uint8 and targets.dtype == torch.int64
        np.testing.assert_array_equal(images, VIEW[ROWS[targets[:, 0].numpy()]])
        seen += targets[:, 0].tolist()
    assert len(seen) == len(set(seen)) == PHOTOS // batch_size * batch_size


def test_what_one_epoch_leaves_out_another_shows():
    seen = {int(photo) for epoch in range(10) for _, targets in batches().epoch(epoch) for photo in targets[:, 0]}
    assert seen == set(range(PHOTOS))


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8] * 6), (50, [50]), (49, [49]), (64, [50])])
def test_an_incomplete_batch_is_left_out_unless_it_is_the_only_one(batch_size, sizes):
    made = batches(batch_size=batch_size)
    assert [len(images) for images, _ in made.epoch(1)] == sizes and len(made) == len(sizes)


def names_in(made: TrainBatches, epoch: int) -> list[list[str]]:
    """The names of the photos of every batch, in order."""
    return [[NAMES[photo] for photo in targets[:, 0]] for _, targets in made.epoch(epoch)]


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_photo_whose_row_the_view_lacks_is_named_with_its_row_and_the_cause(epoch, threads):
    whole = batches(augment=EVERYTHING, threads=threads)
    there = 40
    gone = {name: row for name, row in zip(NAMES, ROWS, strict=True) if row >= there}
    first = next(name for names in names_in(whole, epoch) for name in names if name in gone)
    with pytest.raises(PhotoError) as caught:
        list(replace(whole, view=VIEW[:there]).epoch(epoch))
    said = f"photo {first} (row {gone[first]} of its view) cannot be read or augmented (IndexError: index {gone[first]} is out of bounds"
    assert str(caught.value).startswith(said) and str(caught.value).endswith(". Mend it, or take it out of the data.")


@pytest.mark.parametrize("seed", range(5))
def test_a_photo_that_only_some_random_changes_break_is_named(seed):
    broken = []

    def fragile(images: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        for image in images:
            if rng.random() < 0.03:
                broken.append(image)
                raise ZeroDivisionError("no such\n angle\n")
        return images

    made = replace(batches(seed=seed), make_augment=lambda: fragile)
    with pytest.raises(PhotoError, match=r"cannot be read or augmented \(ZeroDivisionError: no such angle\)") as caught:
        for epoch in range(1, 10):
            list(made.epoch(epoch))
    [name] = [name for name, row in zip(NAMES, ROWS, strict=True) if (VIEW[row] == broken[0]).all()]
    assert f"photo {name} (" in str(caught.value)


def test_a_photo_is_named_among_the_first_few_of_a_data_set_too():
    few = slice(2)
    made = batches(view=VIEW[: ROWS[1]])
    rehearsed = replace(made, rows=made.rows[few], targets=made.targets[few], classes=made.classes[few], batch_size=2)
    broken = [name for name, row in zip(NAMES[few], ROWS[few], strict=True) if row >= ROWS[1]]
    with pytest.raises(PhotoError) as caught:
        list(rehearsed.epoch(1))
    assert any(str(caught.value).startswith(f"photo {name} ") for name in broken)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_photos_fault_names_none(error):
    def exhausted(images: np.ndarray, seed: int) -> np.ndarray:
        raise error

    with pytest.raises(error):
        list(replace(batches(), make_augment=lambda: exhausted).epoch(1))


def test_a_failure_that_does_not_come_again_is_told_as_it_was():
    calls = []

    def moody(images: np.ndarray, seed: int) -> np.ndarray:
        calls.append(seed)
        if len(calls) == 1:
            raise OSError("the disk was away")
        return images

    with pytest.raises(OSError, match="the disk was away"):
        list(replace(batches(), make_augment=lambda: moody).epoch(1))


@pytest.mark.parametrize("threads", [0, 2])
def test_plain_batches_are_the_rows_in_order_the_last_ones_too(threads):
    made = list(plain_batches(VIEW, ROWS, 8, threads))
    assert [len(images) for images in made] == [8] * 6 + [2]
    np.testing.assert_array_equal(torch.cat(made), VIEW[ROWS])


def test_no_rows_are_no_plain_batches():
    assert list(plain_batches(VIEW, ROWS[:0], 8)) == []


def test_batches_do_not_change_a_mapped_view(tmp_path):
    np.save(tmp_path / "view.npy", VIEW)
    mapped = np.load(tmp_path / "view.npy", mmap_mode="r")
    for images, _ in batches(view=mapped).epoch(1):
        images += 1
    np.testing.assert_array_equal(mapped, VIEW)


@pytest.mark.parametrize("count", [0, 1, 3, 20])
@pytest.mark.parametrize("threads", [0, 1, 4])
def test_work_done_ahead_comes_in_order(count, threads):
    assert list(ahead(lambda number: number**2, count, threads)) == [number**2 for number in range(count)]


def test_threads_work_only_a_little_ahead():
    made = []
    work = ahead(made.append, 100, 2)
    next(work)
    work.close()
    assert len(made) <= 6


@pytest.mark.parametrize("ending", ["exhausted", "left", "failed"])
def test_no_thread_survives_its_epoch(ending):
    before = set(threading.enumerate())
    if ending == "exhausted":
        assert len(list(batches(threads=3).epoch(1))) == 6
    elif ending == "left":
        epoch = batches(threads=3).epoch(1)
        next(epoch)
        epoch.close()
    else:
        with pytest.raises(ZeroDivisionError):
            list(ahead(lambda number: 1 // (5 - number), 10, 3))
    assert set(threading.enumerate()) <= before


def test_weighted_draws_all_classes_alike_often_with_power_1():
    classes = np.repeat([0, 1, 2], [800, 150, 50])
    drawn = classes[build_sampler(SamplerConfig(name="weighted"))(classes, np.random.default_rng(0))]
    assert len(drawn) == 1000
    np.testing.assert_allclose(np.bincount(drawn) / 1000, [1 / 3] * 3, atol=0.04)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weighted_draws_a_class_in_the_share_that_power_gives(power):
    counts = np.array([800, 150, 50])
    classes = np.repeat([0, 1, 2], counts)
    sampler = build_sampler(SamplerConfig(name="weighted", power=power))
    drawn = np.concatenate([classes[sampler(classes, np.random.default_rng(seed))] for seed in range(20)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), counts ** (1 - power) / (counts ** (1 - power)).sum(), atol=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_gives_as_many_positions_as_there_are_photos_from_its_generator_alone(name):
    classes = np.array([0, 0, 5, 5, 5, 9])
    sampler = build_sampler(SamplerConfig(name=name))
    first, again = (sampler(classes, np.random.default_rng(3)) for _ in range(2))
    assert len(first) == 6 and set(first) <= set(range(6)) and (first == again).all()


@pytest.mark.parametrize(("name", "used"), [("shuffle", {"name"}), ("weighted", {"name", "power"})])
def test_every_sampler_reads_its_own_settings_only(name, used):
    read = set()
    build_sampler(Watched(SamplerConfig(name=name), read))
    assert read == used


def test_an_unknown_sampler_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="sampler/name: 'weigthed' does not exist; did you mean weighted"):
        build_sampler(SamplerConfig(name="weigthed"))


def augmented(images=VIEW, seed=0, **settings) -> np.ndarray:
    changed = build_augment(AugmentConfig(**settings))(images, seed)
    assert changed.shape == images.shape and changed.dtype == np.uint8
    return changed


def test_nothing_asked_for_is_nothing_done():
    assert build_augment(AugmentConfig()) is None


@pytest.mark.parametrize("settings", [{"flip": 0.5}, {"rotate": 20}, {"brightness": 0.3}, {"contrast": 0.3}, {"erase": 0.5}])
def test_every_augmentation_depends_on_its_seed_alone_and_leaves_the_photos_alone(settings):
    before = VIEW.copy()
    first = augmented(**settings)
    augment = build_augment(AugmentConfig(**settings))
    augment(VIEW[:7], 99)
    np.testing.assert_array_equal(augment(VIEW, 0), first)
    assert (augment(VIEW, 1) != first).any() and np.array_equal(VIEW, before)
    assert len({changed.tobytes() for changed in augmented(np.stack([VIEW[0]] * 40), **settings)}) > 1


def test_a_certain_flip_turns_every_photo_left_to_right():
    np.testing.assert_array_equal(augmented(flip=1.0), VIEW[:, :, ::-1])


def test_a_flip_turns_its_share_of_the_photos():
    turned = (augmented(np.stack([VIEW[0]] * 400), flip=0.3) != VIEW[0]).any(axis=(1, 2, 3))
    assert turned.mean() == pytest.approx(0.3, abs=0.07)


def test_a_rotation_keeps_the_middle_and_brings_no_new_colour():
    flat = np.full((30, 33, 33, 3), 90, np.uint8)
    assert (augmented(flat, rotate=45) == 90).all()
    dot = np.zeros((30, 33, 33, 3), np.uint8)
    dot[:, 14:19, 14:19] = 255
    changed = augmented(dot, rotate=30)
    assert (changed[:, 16, 16] == 255).all() and (changed != dot).any()


def test_brightness_shifts_a_photo_up_or_down_by_at_most_its_share():
    grey = np.full((200, 8, 8, 3), 100, np.uint8)
    means = augmented(grey, brightness=0.2).mean(axis=(1, 2, 3))
    assert means.min() < 85 and means.max() > 115
    assert means.min() >= 100 - 0.2 * 255 - 1 and means.max() <= 100 + 0.2 * 255 + 1


def test_contrast_stretches_a_photo_by_at_most_its_share():
    stripes = np.tile(np.array([60, 140], np.uint8)[None, None, :, None], (200, 8, 4, 3))
    spread = np.ptp(augmented(stripes, contrast=0.25).astype(int), axis=(1, 2, 3))
    assert spread.min() < 70 and spread.max() > 90
    assert spread.min() >= 80 * 0.75 - 1 and spread.max() <= 80 * 1.25 + 1


def test_erasing_fills_one_rectangle_of_at_most_a_fifth():
    changed = (augmented(np.zeros((60, 40, 40, 3), np.uint8), erase=1.0) > 0).any(axis=3)
    share = changed.mean(axis=(1, 2))
    assert share.min() > 0.01 and share.max() <= 0.22
    for photo in changed:
        rows, columns = np.flatnonzero(photo.any(axis=1)), np.flatnonzero(photo.any(axis=0))
        assert photo[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95
