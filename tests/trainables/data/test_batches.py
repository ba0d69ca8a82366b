import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from trainables.ahead import ahead
from trainables.config import section
from trainables.data.augment import AugmentConfig, build_augment
from trainables.data.batches import Batch, TrainBatches, plain_batches
from trainables.data.changes import CHANGES
from trainables.data.edges import with_edges
from trainables.data.images import ImageError
from trainables.data.sampling import SAMPLERS, build_sampler
from trainables.data.training import TrainingImages

IMAGES = 50
VIEW = np.random.default_rng(0).integers(256, size=(IMAGES + 10, 24, 20, 3), dtype=np.uint8)
OTHER_VIEW = np.random.default_rng(2).integers(256, size=(IMAGES + 10, 24, 20, 3), dtype=np.uint8)
ROWS = np.random.default_rng(1).permutation(IMAGES + 10)[:IMAGES]
NAMES = [f"person{image // 7}/shot{image % 7}.jpg" for image in range(IMAGES)]
CLASSES = np.arange(IMAGES) % 4
NOTHING = AugmentConfig()
EVERYTHING = section("augment", policy="trivial", most=4, **dict.fromkeys(CHANGES, 0.3))


def some_images(source=0) -> TrainingImages:
    """Fifty images whose first head tells which they are; its second is soft."""
    return TrainingImages(
        ids=np.array(NAMES, dtype=object),
        source=np.broadcast_to(source, IMAGES),
        groups=np.arange(IMAGES) // 7,
        classes=CLASSES,
        targets=(np.arange(IMAGES), np.random.default_rng(3).dirichlet(np.ones(4), size=IMAGES).astype(np.float32)),
        numbers=np.where(CLASSES == 3, np.nan, np.arange(IMAGES) + 0.5).astype(np.float32),
        weights=np.ones(IMAGES),
    )


def batches(*, augment=NOTHING, sampler="shuffle", batch_size=8, seed=0, threads=0, view=VIEW, edges=False) -> TrainBatches:
    make_augment = partial(build_augment, augment)
    chosen_sampler = build_sampler(section("sampler", name=sampler))
    return TrainBatches([view], ROWS, some_images(), batch_size, chosen_sampler, make_augment, seed, threads, edges)


def bytes_of(made) -> list[bytes]:
    return [tensor.numpy().tobytes() for batch in made for tensor in (batch.images, *batch.targets, batch.numbers)]


def shown(made) -> list[int]:
    """Which images the batches show, in order."""
    return [image for batch in made for image in batch.targets[0].tolist()]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_and_epoch_give_the_same_bytes_with_and_without_threads(sampler):
    alone, helped = (batches(augment=EVERYTHING, sampler=sampler, threads=threads) for threads in (0, 3))
    for epoch in (1, 2):
        assert bytes_of(alone.epoch(epoch)) == bytes_of(helped.epoch(epoch)) == bytes_of(alone.epoch(epoch))


def test_partners_are_others_of_the_class_augmented_alike_and_change_nothing_else():
    groups = np.arange(IMAGES) % 5
    classed = replace(some_images(), targets=(np.arange(IMAGES) % 5,))

    def made(partners: float, threads: int = 0) -> list[Batch]:
        found = replace(batches(augment=EVERYTHING, threads=threads), images=classed, partners=partners)
        return [*found.epoch(1), *found.epoch(2)]

    with_partners = [batch for batch in made(0.5) if batch.partners]
    assert bytes_of(made(0.5)) == bytes_of(made(0.0)) and not any(batch.partners for batch in made(0.0))
    assert 0 < len(with_partners) < len(made(0.5))
    assert bytes_of(one.partners for one in with_partners) == bytes_of(one.partners for one in made(0.5, threads=3) if one.partners)
    for batch in with_partners:
        assert torch.equal(batch.targets[0], batch.partners.targets[0])
        views = VIEW[ROWS]
        plain = [(view == image).all() for image in batch.partners.images.numpy() for view in views[groups == 0]]
        assert not any(plain) and not torch.equal(batch.images, batch.partners.images)


def test_another_seed_or_epoch_gives_other_bytes():
    made = [bytes_of(batches(augment=EVERYTHING, seed=seed).epoch(epoch)) for seed, epoch in ((0, 1), (0, 2), (1, 1))]
    assert len(set(map(tuple, made))) == 3


@pytest.mark.parametrize("batch_size", [1, 7, 8, 50])
def test_shuffled_epochs_show_each_image_at_most_once_with_its_own_target(batch_size):
    seen = []
    for batch in batches(batch_size=batch_size).epoch(1):
        assert batch.images.shape == (batch_size, 24, 20, 3) and batch.images.dtype == torch.uint8
        assert batch.targets[0].dtype == torch.int64
        np.testing.assert_array_equal(batch.images, VIEW[ROWS[batch.targets[0].numpy()]])
        seen += batch.targets[0].tolist()
    assert len(seen) == len(set(seen)) == IMAGES // batch_size * batch_size


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_soft_rows_and_numbers_travel_with_their_images(sampler, threads):
    images = some_images()
    for batch in batches(augment=EVERYTHING, sampler=sampler, batch_size=4, threads=threads).epoch(1):
        picked = batch.targets[0].numpy()
        assert batch.targets[1].dtype == batch.numbers.dtype == torch.float32
        np.testing.assert_array_equal(batch.targets[1], images.targets[1][picked])
        np.testing.assert_array_equal(batch.numbers, images.numbers[picked])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("epoch", [1, 2])
def test_the_order_is_what_an_epoch_shows(sampler, epoch):
    made = batches(augment=EVERYTHING, sampler=sampler, batch_size=3)
    assert shown(made.epoch(epoch)) == made.order(epoch).tolist()
    assert made.order(1).tolist() != made.order(2).tolist()


@pytest.mark.parametrize("threads", [0, 3])
def test_images_of_two_sources_come_from_their_own_files(threads):
    source = np.arange(IMAGES) % 3 % 2
    made = replace(batches(threads=threads), views=[VIEW, OTHER_VIEW], images=some_images(source))
    for batch in made.epoch(1):
        picked = batch.targets[0].numpy()
        assert set(source[picked]) == {0, 1}
        for pixels, image in zip(batch.images, picked, strict=True):
            np.testing.assert_array_equal(pixels, (VIEW, OTHER_VIEW)[source[image]][ROWS[image]])


@pytest.mark.parametrize("threads", [0, 3])
def test_a_channel_of_edges_is_made_of_the_augmented_image(threads):
    plain = batches(augment=EVERYTHING, threads=threads).epoch(1)
    edged = batches(augment=EVERYTHING, threads=threads, edges=True).epoch(1)
    for without, with_them in zip(plain, edged, strict=True):
        np.testing.assert_array_equal(with_them.images, with_edges(without.images.numpy()))


def test_what_one_epoch_leaves_out_another_shows():
    assert {image for epoch in range(10) for image in shown(batches().epoch(epoch))} == set(range(IMAGES))


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8] * 6), (50, [50]), (49, [49]), (64, [50])])
def test_an_incomplete_batch_is_left_out_unless_it_is_the_only_one(batch_size, sizes):
    made = batches(batch_size=batch_size)
    assert [len(batch.images) for batch in made.epoch(1)] == sizes and len(made) == len(sizes)


@pytest.mark.parametrize(("sampler", "images"), [("oversample", 4 * 13), ("undersample", 4 * 12), ("one_per_person", 8)])
def test_an_epoch_is_as_long_as_its_sampler_says(sampler, images):
    made = batches(sampler=sampler, batch_size=4)
    assert len(made) == images // 4 == len(list(made.epoch(1)))


def names_in(made: TrainBatches, epoch: int) -> list[list[str]]:
    """The names of the images of every batch, in order."""
    return [[NAMES[image] for image in batch.targets[0]] for batch in made.epoch(epoch)]


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_image_whose_row_the_view_lacks_is_named_with_its_row_and_the_cause(epoch, threads):
    whole = batches(augment=EVERYTHING, threads=threads)
    there = 40
    gone = {name: row for name, row in zip(NAMES, ROWS, strict=True) if row >= there}
    first = next(name for names in names_in(whole, epoch) for name in names if name in gone)
    with pytest.raises(ImageError) as caught:
        list(replace(whole, views=[VIEW[:there]]).epoch(epoch))
    assert str(caught.value).startswith(f"image {first} (row {gone[first]} of its view) ")
    assert f"(IndexError: index {gone[first]} is out of bounds" in str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_an_image_that_only_some_random_changes_break_is_named(seed):
    broken = []

    def fragile(images: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        for image in images:
            if rng.random() < 0.03:
                broken.append(image)
                raise ZeroDivisionError("no such\n angle\n")
        return images

    made = replace(batches(seed=seed), make_augment=lambda: fragile)
    with pytest.raises(ImageError, match=r"\(ZeroDivisionError: no such angle\)") as caught:
        for epoch in range(1, 10):
            list(made.epoch(epoch))
    [name] = [name for name, row in zip(NAMES, ROWS, strict=True) if (VIEW[row] == broken[0]).all()]
    assert f"image {name} (" in str(caught.value)


def test_an_image_is_named_among_the_first_few_of_a_data_set_too():
    few = slice(2)
    made = batches(view=VIEW[: ROWS[1]])
    rehearsed = replace(made, images=made.images.take(few), batch_size=2)
    broken = [name for name, row in zip(NAMES[few], ROWS[few], strict=True) if row >= ROWS[1]]
    with pytest.raises(ImageError) as caught:
        list(rehearsed.epoch(1))
    assert any(str(caught.value).startswith(f"image {name} ") for name in broken)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_images_fault_names_none(error):
    def exhausted(images: np.ndarray, seed: int) -> np.ndarray:
        raise error

    with pytest.raises(error):
        list(replace(batches(), make_augment=lambda: exhausted).epoch(1))


def test_a_failure_that_does_not_come_again_is_reported_as_it_was():
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


@pytest.mark.parametrize("threads", [0, 2])
def test_plain_batches_with_edges_have_the_edges_of_the_images_of_the_view(threads):
    made = torch.cat(list(plain_batches(VIEW, ROWS, 8, threads, edges=True)))
    np.testing.assert_array_equal(made, with_edges(VIEW[ROWS]))


def test_no_rows_are_no_plain_batches():
    assert list(plain_batches(VIEW, ROWS[:0], 8)) == []


def test_batches_do_not_change_a_mapped_view(tmp_path):
    np.save(tmp_path / "view.npy", VIEW)
    mapped = np.load(tmp_path / "view.npy", mmap_mode="r")
    for batch in batches(view=mapped).epoch(1):
        batch.images.add_(1)
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
