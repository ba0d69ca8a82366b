"""Drawn masks: where they lie, what they leave free, and that a seed draws the same one."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import nightly_after
from trainables.data.drawn_masks import draw_mask

POINTS = np.array([(70.0, 80.0), (130.0, 80.0), (100.0, 118.0), (78.0, 145.0), (122.0, 145.0)])
FACE = Image.new("RGB", (200, 240), (200, 150, 120))


def changed(seed: int, image: Image.Image = FACE, points: np.ndarray = POINTS, **settings) -> np.ndarray:
    """Which pixels (height, width) a mask has changed."""
    found = draw_mask(image, points, np.random.default_rng(seed), **settings)
    return (np.asarray(found) != np.asarray(image.convert("RGB"))).any(axis=2)


@pytest.mark.parametrize("seed", nightly_after(6, range(40)))
def test_a_mask_covers_nose_mouth_and_chin_and_neither_eyes_nor_forehead(seed):
    there = changed(seed)
    assert there[110:190, 90:110].mean() > 0.95, "from the nose down to the chin"
    assert not there[:70].any() and not there[76:84, 66:74].any() and not there[76:84, 126:134].any()
    assert there[118:145, 75:125].mean() > 0.95


@pytest.mark.parametrize("seed", nightly_after(6, range(40)))
def test_with_the_nose_free_the_mask_begins_below_it(seed):
    there = changed(seed, nose_free=True)
    assert not there[:121, 85:115].any() and there[140:180, 90:110].mean() > 0.95


def test_the_same_seed_draws_the_same_mask_and_another_one_another():
    first, again, other = (draw_mask(FACE, POINTS, np.random.default_rng(seed)).tobytes() for seed in (3, 3, 4))
    assert first == again != other


def test_a_mask_turns_and_grows_with_the_face():
    angle = np.deg2rad(25)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    points = (POINTS - (100, 120)) @ turn.T * 1.3 + (200, 240)
    there = changed(0, Image.new("RGB", (400, 480), (200, 150, 120)), points)
    for point in points[2:]:
        x, y = point.astype(int)
        assert there[y, x]
    for point in points[:2]:
        x, y = point.astype(int)
        assert not there[y - 2 : y + 3, x - 2 : x + 3].any()


@pytest.mark.parametrize("points", [POINTS - (95, 0), POINTS + (0, 200), POINTS - (500, 500), np.repeat(POINTS[:1], 5, axis=0)])
def test_a_face_at_the_rim_or_without_extent_is_no_error(points):
    assert draw_mask(FACE.convert("L"), points, np.random.default_rng(0)).size == FACE.size


def test_light_and_shadow_of_the_face_show_on_the_mask():
    image = FACE.copy()
    ImageDraw.Draw(image).rectangle((100, 0, 200, 240), fill=(60, 45, 36))
    seen = np.asarray(draw_mask(image, POINTS, np.random.default_rng(1)).convert("L"), dtype=float)
    assert seen[150, 80:90].mean() > 1.3 * seen[150, 110:120].mean()
