"""What the sections `augment/...` do to pixels, on the uint8 view.

Pixels are changed by albumentations; changes of our own stand in where its units are pixels of one picture size, or where it does
nothing at small sizes. Every strength is a share of the side, of the colours or of the images, as `AugmentConfig` says.
"""

import os
from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

# albumentations asks its home server for a newer version when imported, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np

# The trial decides how many threads it uses; OpenCV would take every core for 64-pixel pictures.
cv2.setNumThreads(0)

Rng = np.random.Generator


class Change(A.ImageOnlyTransform):
    """A function (image (h, w, 3) uint8, generator) -> image of that shape, as a step among those of albumentations."""

    def __init__(self, function: Callable[[np.ndarray, Rng], np.ndarray], p: float = 1.0):
        super().__init__(p=p)
        self.function = function

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return self.function(img, self.random_generator)


# Geometry. Beyond the border lies the image's mirror image: black wedges would tell the network that an image was turned.


def warped(image: np.ndarray, matrix: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The image under a linear map (2, 2) of (x, y) around its middle, then moved by `shift` (x, y) in pixels."""
    height, width = image.shape[:2]
    middle = np.array([width - 1, height - 1]) / 2
    offset = middle - matrix @ middle + shift
    return cv2.warpAffine(image, np.column_stack([matrix, offset]), (width, height), borderMode=cv2.BORDER_REFLECT_101)


def rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    """The image turned around its middle, anticlockwise."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return warped(image, np.array([[cosine, sine], [-sine, cosine]]))


def sheared(image: np.ndarray, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """The image with rows moved by x pixels for each row below the middle, or columns by y for each column right of it."""
    return warped(image, np.array([[1, x], [y, 1]]))


def shifted(image: np.ndarray, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """The image moved to the right and down, by shares of its sides."""
    height, width = image.shape[:2]
    return warped(image, np.eye(2), (x * width, y * height))


def zoomed(image: np.ndarray, rng: Rng, away: float) -> np.ndarray:
    """A random part of the image at its full size: at most the share `away` of the area is lost, the aspect changes by at most 3 : 4.

    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015. Theirs draws again what does not fit, and takes everything
    after ten draws, so that weak crops hardly happen; here the aspect is drawn from those that fit.
    """
    height, width = image.shape[:2]
    area = rng.uniform(1 - away, 1)
    widest = min(np.log(4 / 3), -np.log(area))
    aspect = np.exp(rng.uniform(-widest, widest))
    across, down = width * min(1, sqrt(area * aspect)), height * min(1, sqrt(area / aspect))
    left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
    inverse = np.array([[across / width, 0, left + across / width / 2 - 0.5], [0, down / height, top + down / height / 2 - 0.5]])
    return cv2.warpAffine(image, inverse, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101)


def elastic(image: np.ndarray, rng: Rng) -> np.ndarray:
    """The image bent by random moves of a 5 x 5 grid, of 2 % of the side (standard deviation), smooth in between.

    Source: Ronneberger et al., U-Net, MICCAI 2015, section 3.1.
    """
    height, width = image.shape[:2]
    moves = rng.normal(scale=0.02, size=(5, 5, 2)) * (width, height)
    field = cv2.resize(moves.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(image, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def tiled(image: np.ndarray, rng: Rng) -> np.ndarray:
    """The four quarters of the image in a random order; a middle row or column of an odd side stays."""
    height, width = image.shape[:2]
    down, across = height // 2, width // 2
    places = [np.s_[top : top + down, left : left + across] for top in (0, height - down) for left in (0, width - across)]
    changed = image.copy()
    for place, source in zip(places, rng.permutation(4), strict=True):
        changed[place] = image[places[source]]
    return changed


# Colours


def recoloured(image: np.ndarray, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0) -> np.ndarray:
    """The image multiplied, stretched around its mean gray, and moved away from its gray, each by a factor of 0 or more."""
    pixels = image.astype(np.float32) * brightness
    if contrast != 1:
        middle = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean()
        pixels = middle + contrast * (pixels - middle)
    if saturation != 1:
        gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
        pixels = gray + saturation * (pixels - gray)
    return to_uint8(pixels)


def sharper(image: np.ndarray, factor: float) -> np.ndarray:
    """The image moved away from its smoothed self: 0 smooth, 1 as it is, above 1 sharper."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13
    smooth = cv2.filter2D(image, -1, kernel).astype(np.float32)
    return to_uint8(smooth + factor * (image - smooth))


def relit(image: np.ndarray, rng: Rng, deviation: float) -> np.ndarray:
    """The image with one random amount of light added along each main axis of its colours.

    Args:
        deviation: standard deviation of the amount, as a share of the colours' own along that axis.
    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012, section 4.1. Theirs
        multiplies by variances, whose scale depends on that of the pixels.
    """
    pixels = image.reshape(-1, 3).astype(np.float32)
    pixels -= pixels.mean(axis=0)
    variances, axes = np.linalg.eigh(pixels.T @ pixels / len(pixels))
    light = axes @ (rng.normal(scale=deviation, size=3) * np.sqrt(variances.clip(min=0)))
    return cv2.LUT(image, to_uint8(np.arange(256)[:, None] + light)[None])


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels rounded and cut to 0..255."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# What each field of AugmentConfig does, given its value above 0 and its details by name, in the order in which images are changed

CHANGES: dict[str, Callable[..., A.BasicTransform | A.BaseCompose]] = {
    "flip": lambda p: A.HorizontalFlip(p=p),
    "rotate": lambda most: Change(lambda image, rng: rotated(image, rng.uniform(-most, most))),
    "shift": lambda most: Change(lambda image, rng: shifted(image, *rng.uniform(-most, most, size=2))),
    "scale": lambda most: Change(lambda image, rng: warped(image, np.eye(2) * rng.uniform(1 - most, 1 + most))),
    "zoom": lambda away: Change(partial(zoomed, away=away)),
    "brightness": lambda most: Change(lambda image, rng: recoloured(image, brightness=rng.uniform(1 - most, 1 + most))),
    "contrast": lambda most: Change(lambda image, rng: recoloured(image, contrast=rng.uniform(1 - most, 1 + most))),
    "saturation": lambda most: Change(lambda image, rng: recoloured(image, saturation=rng.uniform(1 - most, 1 + most))),
    "hue": lambda most: A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(-most, most), p=1.0),
    "pca": lambda deviation: Change(partial(relit, deviation=deviation)),
    "gray": lambda p: A.ToGray(p=p),
    "clahe": lambda p: A.CLAHE(clip_limit=(1, 4), tile_grid_size=(4, 4), p=p),
    "sharpen": lambda p: A.Sharpen(alpha=(0.05, 0.2), lightness=(1, 1), p=p),
    "blur": lambda p: A.OneOf(
        [A.GaussianBlur(sigma_limit=(0.5, 2)), A.MedianBlur(blur_limit=(3, 5)), A.MotionBlur(blur_limit=(3, 7))], p=p
    ),
    "noise": lambda most: A.GaussNoise(std_range=(0, most), p=1.0),
    "elastic": lambda p: Change(elastic, p),
    "distort": lambda most: A.GridDistortion(distort_limit=(-most, most), border_mode=cv2.BORDER_REFLECT_101, p=1.0),
    "tiles": lambda p: Change(tiled, p),
    # DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    "dropout": lambda p: A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.1, 0.25), hole_width_range=(0.1, 0.25), p=p),
    "grid_dropout": lambda p: A.GridDropout(ratio=0.4, holes_number_xy=(4, 4), p=p),
    # Zhong et al., Random Erasing Data Augmentation, 2017.
    "erase": lambda p, area, aspect: A.Erasing(scale=area, ratio=(1 / aspect[1], 1 / aspect[0]), fill="random", p=p),
}


# Policies


def _solarized(image: np.ndarray, strength: float) -> np.ndarray:
    values = np.arange(256)
    return cv2.LUT(image, np.where(values >= 255 * (1 - abs(strength)), 255 - values, values).astype(np.uint8))


def _posterized(image: np.ndarray, strength: float) -> np.ndarray:
    lost = round(4 * abs(strength))  # bits
    return image >> lost << lost


def _stretched(image: np.ndarray) -> np.ndarray:
    low, high = image.min(axis=(0, 1)).astype(np.float32), image.max(axis=(0, 1)).astype(np.float32)
    return to_uint8((image - low) * (255 / np.maximum(high - low, 1)))


# image, strength from -1 to 1 -> image. The strongest of each are RandAugment's, as torchvision has them.
OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "autocontrast": lambda image, strength: _stretched(image),
    "equalize": lambda image, strength: cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)]),
    "rotate": lambda image, strength: rotated(image, 30 * strength),
    "solarize": _solarized,
    "posterize": _posterized,
    "color": lambda image, strength: recoloured(image, saturation=1 + 0.9 * strength),
    "contrast": lambda image, strength: recoloured(image, contrast=1 + 0.9 * strength),
    "brightness": lambda image, strength: recoloured(image, brightness=1 + 0.9 * strength),
    "sharpness": lambda image, strength: sharper(image, 1 + 0.9 * strength),
    "shear_x": lambda image, strength: sheared(image, x=0.3 * strength),
    "shear_y": lambda image, strength: sheared(image, y=0.3 * strength),
    "translate_x": lambda image, strength: shifted(image, x=0.45 * strength),
    "translate_y": lambda image, strength: shifted(image, y=0.45 * strength),
}


def rand_augment(image: np.ndarray, rng: Rng, ops: int, magnitude: float) -> np.ndarray:
    """So many operations, drawn with replacement, all of one strength, to either side.

    Source: Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space, 2020.
    """
    for name in rng.choice(list(OPERATIONS), size=ops):
        image = OPERATIONS[name](image, magnitude * rng.choice((-1, 1)))
    return image


def trivial_augment(image: np.ndarray, rng: Rng) -> np.ndarray:
    """One operation of a random strength. Source: Mueller and Hutter, TrivialAugment, ICCV 2021."""
    return OPERATIONS[rng.choice(list(OPERATIONS))](image, rng.uniform(-1, 1))
