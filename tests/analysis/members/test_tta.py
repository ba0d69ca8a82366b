import numpy as np
import pytest
import torch

from analysis.members.tta import TRANSFORM_SETS, TRANSFORMS
from trainables.data.edges import with_edges

SIZES = [(32, 32), (40, 32), (33, 57), (4, 3)]


def pictures(seed, height=40, width=32, count=4):
    """Smooth pictures with a bright box, so that there are edges."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, height, width, 3), dtype=np.uint8)
    images[:] = np.linspace(0, 90, width, dtype=np.uint8)[None, None, :, None]
    for image in images:
        top, left = rng.integers(height // 2), rng.integers(width // 2)
        image[top : top + height // 3 + 1, left : left + width // 3 + 1] = rng.integers(150, 256, size=3)
    return torch.from_numpy(images)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
def test_every_look_keeps_shape_and_type_and_leaves_its_input_alone(name, size):
    images = pictures(0, *size)
    before = images.clone()
    seen = TRANSFORMS[name](images)
    assert (seen.shape, seen.dtype) == (images.shape, torch.uint8)
    assert seen.is_contiguous()
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_look_of_an_image_depends_on_no_other_image(name):
    images = pictures(1)
    together = TRANSFORMS[name](images)
    assert all(torch.equal(together[[number]], TRANSFORMS[name](images[[number]])) for number in range(len(images)))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_look_at_a_batch_with_edges_has_the_edges_of_what_it_shows(name):
    images = pictures(2)
    seen = TRANSFORMS[name](torch.from_numpy(with_edges(images.numpy())))
    assert np.array_equal(seen.numpy(), with_edges(TRANSFORMS[name](images).numpy()))
    assert seen[..., 3].any()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_look_of_an_even_image_is_that_image(name):
    even = torch.full((2, 33, 57, 3), 113, dtype=torch.uint8)
    assert torch.equal(TRANSFORMS[name](even), even)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "plain"])
def test_every_look_but_the_plain_one_shows_something_else(name):
    images = pictures(3)
    assert (TRANSFORMS[name](images) != images).float().mean() > 0.05
    assert torch.equal(TRANSFORMS["plain"](images), images)


def test_flip_turns_left_to_right_and_twice_is_nothing():
    images = pictures(4)
    assert np.array_equal(TRANSFORMS["flip"](images).numpy(), images.numpy()[:, :, ::-1])
    assert torch.equal(TRANSFORMS["flip"](TRANSFORMS["flip"](images)), images)


def box_width(image):
    return int((image[:, :, 0].max(axis=0) > 128).sum())


def test_zoom_enlarges_the_middle_by_a_ninth_and_wide_shrinks_it_by_an_eleventh():
    images = torch.zeros((1, 60, 200, 3), dtype=torch.uint8)
    images[:, 15:45, 50:150] = 255
    assert box_width(TRANSFORMS["zoom"](images)[0].numpy()) == pytest.approx(100 / 0.9, abs=1)
    assert box_width(TRANSFORMS["wide"](images)[0].numpy()) == pytest.approx(100 / 1.1, abs=1)


def test_wide_repeats_the_outermost_pixels_instead_of_black():
    images = torch.full((1, 60, 60, 3), 200, dtype=torch.uint8)
    images[:, 20:40, 20:40] = 10
    assert TRANSFORMS["wide"](images)[0, 0].min() == 200


def test_every_set_begins_with_the_plain_transform_and_names_each_once():
    assert TRANSFORM_SETS[0] == ("plain",)
    for looks in TRANSFORM_SETS:
        assert looks[0] == "plain"
        assert len(set(looks)) == len(looks)
        assert set(looks) <= set(TRANSFORMS)
