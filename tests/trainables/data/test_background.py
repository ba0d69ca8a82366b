from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from trainables.config import section
from trainables.data.background import without_background
from trainables.data.views import View, look

WHOLE = (0, 0, 120, 100)


@pytest.fixture(scope="module")
def disc() -> Image.Image:
    """A red disc around (60, 50) before grainy green."""
    rng = np.random.default_rng(0)
    pixels = np.array([40, 160, 60]) + rng.integers(-20, 20, size=(100, 120, 3))
    y, x = np.mgrid[:100, :120]
    inside = (x - 60) ** 2 + (y - 50) ** 2 < 30**2
    pixels[inside] = np.array([200, 40, 40]) + rng.integers(-20, 20, size=(inside.sum(), 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("face", [None, (45, 35, 75, 65)])
def test_what_stands_in_front_stays_and_the_rest_is_black(disc, face):
    seen = np.asarray(without_background(disc, WHOLE, face, 3)).astype(int)
    y, x = np.mgrid[:100, :120]
    away = np.hypot(x - 60, y - 50)
    np.testing.assert_array_equal(seen[away < 27], np.asarray(disc)[away < 27])
    assert (seen[away > 33] == 0).mean() > 0.95


def test_the_same_image_gives_the_same_bits_in_every_thread_and_whatever_came_before(disc):
    first = np.asarray(without_background(disc, WHOLE, None, 3))
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda turned: np.asarray(without_background(disc, WHOLE, None, 3)), range(8)))
    assert all((one == first).all() for one in again)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (16, 16), (300, 17), (900, 700)])
def test_an_image_of_one_colour_is_cut_whatever_its_shape(size):
    image = Image.new("RGB", size, "gray")
    assert without_background(image, (0, 0, *size), None, 2).size == size
    assert without_background(image, (0, 0, *size), (0, 0, *size), 2).size == size


def test_a_view_shows_the_area_of_its_crop_without_the_background(disc):
    view = View.of(section("view", crop="grabcut", fraction=0.8, size=(80, 96)))
    cut = without_background(disc, (12, 10, 108, 90), None, view.rounds).crop((12, 10, 108, 90))
    np.testing.assert_array_equal(look(disc, view), np.asarray(cut))
    around = View.of(section("view", crop="face_grabcut", margin=0.5, size=32))
    assert (look(disc, around, (45, 35, 75, 65)) != look(disc, around, None)).any()
