import colorsys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.conftest import nightly_after
from tests.messages import mistaken
from trainables.config import section
from trainables.data.augment import POLICIES, AugmentConfig, build_augment
from trainables.data.changes import CHANGES, OPERATIONS, rand_augment, trivial_augment
from trainables.registry import ConfigError

SIZES = [(16, 16), (24, 20), (33, 47), (64, 64)]
PROBABILITIES = ["flip", "gray", "clahe", "sharpen", "blur", "elastic", "tiles", "dropout", "grid_dropout", "erase"]
WEAK = {
    "rotate": 2, "shift": 0.01, "scale": 0.02, "zoom": 0.05, "brightness": 0.02, "contrast": 0.05, "saturation": 0.05, "hue": 0.02,
    "pca": 0.03, "noise": 0.01, "distort": 0.05,
}  # fmt: skip
STRONGEST = dict.fromkeys(CHANGES, 1.0) | {"rotate": 180, "scale": 0.99, "zoom": 0.99, "hue": 0.5}
STEERING = {"most", "policy", "ops", "magnitude", "erase_area", "erase_aspect"}


def picture(height=64, width=64, seed=0) -> np.ndarray:
    """A colourful image with soft shapes and a little grain."""
    rng = np.random.default_rng(seed)
    shapes = cv2.resize(rng.integers(40, 216, size=(6, 5, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(shapes + rng.normal(scale=3, size=shapes.shape), 0, 255).astype(np.uint8)


def augmented(images, seed=0, **settings) -> np.ndarray:
    before = images.copy()
    changed = build_augment(section("augment", **settings))(images, seed)
    assert changed.shape == images.shape and changed.dtype == np.uint8 and changed.flags.c_contiguous
    np.testing.assert_array_equal(images, before)
    return changed


def often(image, times=300, **settings) -> np.ndarray:
    return augmented(np.stack([image] * times), **settings)


def ramps(height, width) -> np.ndarray:
    """Red tells the column and green the row: 255 times its middle, as a share of the side."""
    red, green = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.rint(255 * np.stack([red, green, np.zeros_like(red)], axis=-1)).astype(np.uint8)


def slope(values) -> float:
    """Change of red or green along a middle part (n,), as a share of the side for a step of a pixel."""
    return np.polyfit(np.arange(len(values)), values, 1)[0] / 255


# What holds for every change


def test_nothing_asked_for_is_nothing_done():
    assert build_augment(AugmentConfig()) is None
    assert build_augment(section("augment", most=3)) is None


def test_every_setting_is_a_change_or_steers_them_and_changes_come_in_the_order_of_the_settings():
    assert [name for name in AugmentConfig.model_fields if name not in STEERING] == list(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", SIZES)
def test_every_change_depends_on_its_seed_alone_and_changes_images_of_any_size(name, size):
    images = np.stack([picture(*size, seed) for seed in range(12)])
    settings = {name: 0.4 * STRONGEST[name]}
    first = augmented(images, **settings)
    augment = build_augment(section("augment", **settings))
    augment(images[:7], 99)
    np.testing.assert_array_equal(augment(images, 0), first)
    assert (first != images).any() and (augment(images, 1) != first).any()
    assert len({changed.tobytes() for changed in often(images[0], 20, **settings)}) > 1


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", SIZES)
def test_every_change_can_be_as_strong_as_its_setting_allows(name, size):
    image = picture(*size)
    assert (often(image, 20, **{name: STRONGEST[name]}) != image).any()


@pytest.mark.parametrize("name", WEAK)
def test_a_weak_strength_already_changes_images(name):
    image = picture()
    change = np.abs(often(image, 50, **{name: WEAK[name]}).astype(int) - image).mean(axis=(1, 2, 3))
    assert change.mean() > 0.2
    assert change.mean() < np.abs(often(image, 50, **{name: 0.4 * STRONGEST[name]}).astype(int) - image).mean()


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_probability_is_the_share_of_the_images_that_change(name):
    image = picture()
    changed = (often(image, 500, **{name: 0.3}) != image).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.3 * (23 / 24 if name == "tiles" else 1), abs=0.08)


@pytest.mark.parametrize("name", ["flip", "rotate", "shift", "scale", "zoom", "elastic", "distort", "tiles"])
def test_geometry_brings_no_colour_that_an_image_has_not(name):
    image = np.full((40, 40, 3), 120, np.uint8)
    assert (often(image, 40, **{name: 0.9 * STRONGEST[name]}) == 120).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", POLICIES)
def test_all_changes_go_together(size, policy):
    everything = {name: 0.3 * STRONGEST[name] for name in CHANGES}
    images = np.stack([picture(*size, seed) for seed in range(10)])
    np.testing.assert_array_equal(augmented(images, policy=policy, **everything), augmented(images, policy=policy, **everything))


def test_threads_with_an_augment_each_give_the_same_bytes():
    config = section("augment", policy="rand", most=3, **{name: 0.3 * STRONGEST[name] for name in CHANGES})
    images = np.stack([picture(seed=seed) for seed in range(6)])
    alone = [build_augment(config)(images, seed).tobytes() for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: build_augment(config)(images, seed).tobytes(), range(16))) == alone


# Most


def traces(changed) -> tuple[bool, bool, bool]:
    """Whether an image with a bright left side was flipped, lost its colours, and has black boxes."""
    bright = np.median(changed.sum(axis=-1), axis=0)
    flipped = np.median(bright[:20]) < np.median(bright[20:])
    black = (changed == 0).all(axis=-1)
    return bool(flipped), bool((np.ptp(changed[~black], axis=-1) == 0).all()), bool(black.any())


@pytest.mark.parametrize(("most", "seen"), [(0, 3), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_each_image_gets_exactly_so_many_of_the_changes_or_all_there_are(most, seen):
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (220, 160, 120), (60, 90, 30)
    found = np.array([traces(changed) for changed in often(image, most=most, flip=1.0, gray=1.0, dropout=1.0)])
    assert (found.sum(axis=1) == seen).all()
    np.testing.assert_allclose(found.mean(axis=0), seen / 3, atol=0.1)


def test_a_drawn_change_keeps_its_own_probability():
    image = picture()
    changed = (often(image, 600, most=1, flip=0.5, gray=0.5) != image).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.5, abs=0.08)


def test_changes_are_made_in_their_fixed_order_whichever_are_drawn():
    dark = often(np.full((40, 40, 3), 100, np.uint8), most=2, brightness=0.2, noise=0.05, dropout=1.0)
    with_boxes = [image for image in dark if (image == 0).mean() > 0.01]
    assert 150 < len(with_boxes) < 250
    # Noise after the boxes would leave few of their pixels black.
    for image in with_boxes:
        assert set(np.unique(image[(image < 40).any(axis=-1)])) == {0}


# Geometry, measured


def test_a_certain_flip_turns_every_image_left_to_right():
    image = picture(24, 20)
    assert (often(image, 10, flip=1.0) == image[:, ::-1]).all()


def test_a_rotation_turns_by_at_most_its_degrees_to_either_side():
    angles = []
    for changed in often(ramps(65, 65), rotate=20)[:, 20:45, 20:45, 0].astype(float):
        down, across = slope(changed.mean(axis=1)), slope(changed.mean(axis=0))
        angles.append(np.rad2deg(np.arctan2(down, across)))
    assert -20.5 < min(angles) < -18 and 18 < max(angles) < 20.5
    assert np.mean(angles) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("size", [(40, 60), (64, 64)])
def test_a_shift_moves_an_image_by_at_most_its_share_of_each_side(size):
    height, width = size
    dot = np.zeros((*size, 3), np.uint8)
    dot[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1] = 255
    rows, columns = np.indices(size)
    weights = often(dot, 500, shift=0.2)[..., 0].astype(float)
    for axis, side in ((rows, height), (columns, width)):
        moved = ((weights * axis).sum(axis=(1, 2)) / weights.sum(axis=(1, 2)) - (side - 1) / 2) / side
        assert -0.201 < moved.min() < -0.19 and 0.19 < moved.max() < 0.201
        assert moved.mean() == pytest.approx(0, abs=0.02)


def test_a_scale_enlarges_or_shrinks_by_at_most_its_share_and_keeps_the_aspect():
    changed = often(ramps(64, 96), scale=0.3)[:, 24:40, 36:60].astype(float)
    across = np.array([1 / (96 * slope(image[..., 0].mean(axis=0))) for image in changed])
    down = np.array([1 / (64 * slope(image[..., 1].mean(axis=1))) for image in changed])
    np.testing.assert_allclose(across, down, rtol=0.05)
    assert 0.68 < across.min() < 0.73 and 1.27 < across.max() < 1.32


@pytest.mark.parametrize("zoom", [0.1, 0.5])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_a_zoom_keeps_all_but_its_share_of_the_area_at_full_size(zoom, size):
    changed = often(ramps(*size), zoom=zoom).astype(float)
    across = np.array([size[1] * slope(image[4:-4, 4:-4, 0].mean(axis=0)) for image in changed])
    down = np.array([size[0] * slope(image[4:-4, 4:-4, 1].mean(axis=1)) for image in changed])
    area, aspect = across * down, across / down
    assert 1 - zoom - 0.02 < area.min() < 1 - 0.95 * zoom + 0.02 and area.max() < 1.02
    assert area.mean() == pytest.approx(1 - zoom / 2, abs=0.05 * zoom + 0.01)
    assert 0.74 < aspect.min() < 0.97 and 1.03 < aspect.max() < 1.35
    # All of the kept part comes from inside the image, and from everywhere in it.
    assert changed[..., 0].min() < 5 and changed[..., 0].max() > 250
    for side in range(2):
        middles = changed[:, :, :, side].mean(axis=(1, 2)) / 255
        assert np.std(middles) > 0.02 * zoom and np.mean(middles) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("size", [(48, 48), (96, 144)])
def test_an_elastic_distortion_moves_pixels_by_a_share_of_the_side_whatever_the_size(size):
    plain = ramps(*size).astype(float)
    moved = (often(ramps(*size), 100, elastic=1.0) - plain)[:, 8:-8, 8:-8] / 255
    for side in range(2):
        assert 0.01 < moved[..., side].std() < 0.03
        assert np.abs(moved[..., side].mean()) < 0.005


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.6])
def test_a_grid_distortion_moves_pixels_in_proportion_to_its_strength_and_keeps_their_order(strength):
    changed = often(ramps(60, 60), 200, distort=strength)[:, 2:-2, 2:-2].astype(float)
    moved = (changed - ramps(60, 60)[2:-2, 2:-2]) / 255 * 5  # in cells, of which there are five to a side
    for side in range(2):
        assert moved[..., side].std() == pytest.approx(strength / 2, rel=0.15)
        assert (np.diff(changed[..., side], axis=2 - side) >= 0).all()


@pytest.mark.parametrize("size", [(24, 20), (33, 47)])
def test_tiles_change_places_and_nothing_else(size):
    down, across = size[0] // 2, size[1] // 2

    def quarters(image):
        return [tile for rows in (image[:down], image[-down:]) for tile in (rows[:, :across].tobytes(), rows[:, -across:].tobytes())]

    image = picture(*size)
    orders = {tuple(quarters(image).index(tile) for tile in quarters(changed)) for changed in often(image, 300, tiles=1.0)}
    assert len(orders) == 24 and all(sorted(order) == [0, 1, 2, 3] for order in orders)


# Colours, measured


def test_brightness_multiplies_an_image_by_at_most_its_share():
    factors = often(np.full((8, 8, 3), 100, np.uint8), brightness=0.2).mean(axis=(1, 2, 3)) / 100
    assert 0.79 < factors.min() < 0.82 and 1.18 < factors.max() < 1.21


def test_contrast_stretches_an_image_by_at_most_its_share_around_its_mean():
    stripes = np.tile(np.array([60, 140], np.uint8)[None, :, None], (8, 4, 3))
    changed = often(stripes, contrast=0.25)
    spread = np.ptp(changed.astype(int), axis=(1, 2, 3)) / 80
    assert 0.74 < spread.min() < 0.78 and 1.22 < spread.max() < 1.26
    np.testing.assert_allclose(changed.mean(axis=(1, 2, 3)), 100, atol=1)


def test_saturation_moves_colours_from_or_to_their_gray_by_at_most_its_share():
    flat = np.full((8, 8, 3), (150, 110, 90), np.uint8)
    changed = often(flat, saturation=0.5)[:, 0, 0].astype(int)
    factors = np.ptp(changed, axis=1) / 60
    assert 0.48 < factors.min() < 0.55 and 1.45 < factors.max() < 1.52
    np.testing.assert_allclose(changed @ (0.299, 0.587, 0.114), np.array((150, 110, 90)) @ (0.299, 0.587, 0.114), atol=1)


@pytest.mark.parametrize("hue", [0.05, 0.2])
def test_hue_turns_the_colour_circle_by_at_most_its_share(hue):
    def turn(colour):
        return colorsys.rgb_to_hsv(*(int(part) / 255 for part in colour))[0]

    flat = np.full((8, 8, 3), (80, 200, 80), np.uint8)
    turns = np.array([turn(changed[0, 0]) - turn(flat[0, 0]) for changed in often(flat, hue=hue)])
    assert -hue - 0.01 < turns.min() < -0.85 * hue and 0.85 * hue < turns.max() < hue + 0.01


@pytest.mark.parametrize("pca", [0.1, 0.5])
def test_pca_adds_one_light_along_the_axis_in_which_colours_differ(pca):
    image = np.full((20, 20, 3), (110, 130, 150), np.uint8)
    image[:10, :, 0] += 40  # red has a standard deviation of 20, the others of 0
    light = often(image, 600, pca=pca).astype(int) - image
    assert (np.ptp(light, axis=(1, 2)) == 0).all() and (light[..., 1:] == 0).all()
    assert light[:, 0, 0, 0].std() == pytest.approx(20 * pca, rel=0.1)


def test_gray_images_keep_their_light_and_lose_their_colours():
    image = picture()
    for changed in often(image, 3, gray=1.0):
        assert (np.ptp(changed, axis=-1) == 0).all()
        np.testing.assert_allclose(changed[..., 0], image @ (0.299, 0.587, 0.114), atol=1)


def steepness(images) -> float:
    return np.abs(np.diff(images.astype(int), axis=-2)).mean()


def test_sharpening_and_local_equalisation_steepen_edges_and_blurs_flatten_them():
    image = picture()
    assert steepness(often(image, 20, sharpen=1.0)) > 1.3 * steepness(image)
    assert steepness(often(image, 20, clahe=1.0)) > 1.1 * steepness(image)
    assert steepness(often(image, 20, blur=1.0)) < 0.9 * steepness(image)
    assert often(image, 20, sharpen=1.0).mean() == pytest.approx(image.mean(), abs=3)


def test_noise_has_a_deviation_of_at_most_its_strength():
    deviations = (often(np.full((40, 40, 3), 128, np.uint8), noise=0.1).astype(float) - 128).std(axis=(1, 2, 3)) / 255
    assert deviations.min() < 0.005 and 0.095 < deviations.max() < 0.105
    assert deviations.mean() == pytest.approx(0.05, abs=0.005)


# What hides parts


def test_dropout_blackens_one_to_four_boxes_of_at_most_a_quarter_of_each_side():
    hidden = (often(np.full((40, 40, 3), 200, np.uint8), dropout=1.0) == 0).all(axis=-1)
    counts = [cv2.connectedComponents(one.astype(np.uint8))[0] - 1 for one in hidden]
    assert set(counts) == {1, 2, 3, 4}
    assert hidden.mean(axis=(1, 2)).min() > 0.009 and hidden.mean(axis=(1, 2)).max() <= 4 * 0.25**2


def test_grid_dropout_blackens_a_grid_that_starts_anywhere():
    hidden = (often(np.full((40, 40, 3), 200, np.uint8), grid_dropout=1.0) == 0).all(axis=-1)
    assert hidden.mean() == pytest.approx(0.4**2, abs=0.05)
    assert len({one.tobytes() for one in hidden}) > 5


def test_erasing_fills_one_rectangle_of_at_most_a_fifth():
    changed = (often(np.zeros((40, 40, 3), np.uint8), erase=1.0) > 0).any(axis=3)
    share = changed.mean(axis=(1, 2))
    assert share.min() > 0.01 and share.max() <= 0.22
    for one in changed:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95


@pytest.mark.parametrize(("area", "aspect"), [((0.05, 0.05), (0.5, 1.0)), ((0.3, 0.4), (1.0, 1.0)), ((0.1, 0.1), (3.0, 4.0))])
def test_an_erased_rectangle_has_the_area_and_the_aspect_that_are_asked_for(area, aspect):
    changed = (often(np.zeros((80, 80, 3), np.uint8), 100, erase=1.0, erase_area=area, erase_aspect=aspect) > 0).any(axis=3)
    share, height, width = changed.mean(axis=(1, 2)), changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)
    # Sides are whole pixels.
    assert area[0] * 0.9 < share.min() and share.max() < area[1] * 1.1
    assert aspect[0] * 0.85 < (height / width).min() and (height / width).max() < aspect[1] * 1.15


def test_an_area_or_aspect_that_is_none_is_refused():
    with pytest.raises(ConfigError) as caught:
        section("augment", erase=1.0, erase_area=(0.2, 0.1), erase_aspect=(0.0, 1.0))
    assert not mistaken(str(caught.value).splitlines(), [("augment/erase_area: ", "0.2", "0.1"), ("augment/erase_aspect: ", "0")])
    with pytest.raises(ConfigError, match="augment/erase_area: .*1.5"):
        section("augment", erase_area=(0.2, 1.5))


# Policies


def of_pil(name, image, strength) -> np.ndarray:
    picture = Image.fromarray(image)
    enhancers = {name: getattr(ImageEnhance, name.title()) for name in ("color", "contrast", "brightness", "sharpness")}
    if name in enhancers:
        return np.array(enhancers[name](picture).enhance(1 + 0.9 * strength))
    if name == "autocontrast":
        return np.array(ImageOps.autocontrast(picture))
    if name == "posterize":
        return np.array(ImageOps.posterize(picture, 8 - round(4 * abs(strength))))
    return np.array(ImageOps.solarize(picture, int(np.ceil(255 * (1 - abs(strength))))))


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.3, 0.8])
@pytest.mark.parametrize("name", ["autocontrast", "solarize", "posterize", "color", "contrast", "brightness", "sharpness"])
def test_operations_on_colours_are_those_of_pillow(name, strength):
    image = picture()
    ours, theirs = OPERATIONS[name](image, strength), of_pil(name, image, strength)
    assert np.abs(ours.astype(int) - theirs)[1:-1, 1:-1].max() <= 2


def test_equalize_makes_all_values_of_a_channel_alike_frequent():
    shares = [np.quantile(OPERATIONS["equalize"](picture(), 0.3)[..., channel], [0.25, 0.5, 0.75]) / 255 for channel in range(3)]
    np.testing.assert_allclose(shares, [[0.25, 0.5, 0.75]] * 3, atol=0.05)


@pytest.mark.parametrize("strength", [-1.0, 0.5])
def test_operations_on_places_move_as_far_as_their_strength_says(strength):
    plain = ramps(40, 40).astype(float)

    def moved(name, side):
        return (plain - OPERATIONS[name](ramps(40, 40), strength))[..., side] * 40 / 255  # pixels to the right, or down

    away = slice(19, 21) if strength == 1 else slice(18, 22)
    np.testing.assert_allclose(moved("translate_x", 0)[:, away], 18 * strength, atol=0.2)
    np.testing.assert_allclose(moved("translate_y", 1)[away], 18 * strength, atol=0.2)
    below = (np.arange(14, 26) - 19.5)[:, None]
    np.testing.assert_allclose(moved("shear_x", 0)[14:26, 14:26], 0.3 * strength * below + np.zeros(12), atol=0.3)
    np.testing.assert_allclose(moved("shear_y", 1)[14:26, 14:26], 0.3 * strength * below.T + np.zeros((12, 1)), atol=0.3)
    turned = OPERATIONS["rotate"](ramps(65, 65), strength)[20:45, 20:45, 0].astype(float)
    anticlockwise = np.rad2deg(np.arctan2(-slope(turned.mean(axis=1)), slope(turned.mean(axis=0))))
    assert anticlockwise == pytest.approx(30 * strength, abs=1)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_every_operation_changes_an_image_of_any_size_and_one_without_strength_has_no_effect(name, size):
    image = picture(*size)
    for strength in (-1.0, 0.5, 1.0):
        changed = OPERATIONS[name](image, strength)
        assert changed.shape == image.shape and changed.dtype == np.uint8 and (changed != image).any()
    if name not in ("autocontrast", "equalize"):
        np.testing.assert_array_equal(OPERATIONS[name](image, 0.0), image)


@pytest.mark.parametrize("seed", nightly_after(2, range(20)))
def test_rand_applies_its_number_of_operations_at_its_strength_to_either_side(seed):
    image = picture()
    once = {OPERATIONS[name](image, strength).tobytes() for name in OPERATIONS for strength in (-0.3, 0.3)}
    twice = {
        OPERATIONS[second](OPERATIONS[first](image, one), other).tobytes()
        for first in OPERATIONS
        for second in OPERATIONS
        for one in (-0.3, 0.3)
        for other in (-0.3, 0.3)
    }
    assert rand_augment(image, np.random.default_rng(seed), ops=1, magnitude=0.3).tobytes() in once
    assert rand_augment(image, np.random.default_rng(seed), ops=2, magnitude=0.3).tobytes() in twice


def test_a_larger_magnitude_of_rand_changes_images_more():
    image = picture()
    change = [np.abs(often(image, policy="rand", magnitude=size).astype(int) - image).mean() for size in (0.1, 0.5, 1.0)]
    assert change[0] < change[1] < change[2]


def test_trivial_applies_one_operation_of_every_strength():
    image = np.full((20, 20, 3), 100, np.uint8)
    changed = [trivial_augment(image, np.random.default_rng(seed)) for seed in range(800)]
    # Of a flat image nothing shows but brightness, solarize, posterize and equalize; brightness alone gives these values.
    brightened = np.array([one[0, 0, 0] for one in changed if (one == one[0, 0, 0]).all() and one[0, 0, 0] > 100 and one[0, 0, 0] < 155])
    assert len(brightened) / len(changed) == pytest.approx(0.55 / 0.9 / 2 / len(OPERATIONS), abs=0.02)
    assert len(set(brightened)) > 10


def test_a_policy_comes_before_the_changes_that_hide_parts():
    image = np.full((40, 40, 3), 100, np.uint8)
    for changed in often(image, 60, policy="rand", ops=3, magnitude=0.5, dropout=1.0):
        assert (changed == 0).all(axis=-1).mean() > 0.005
