"""Random changes to training images: which, and how strong.

What they do to pixels stands in `changes.py`, which is imported when the first is built: it brings torch along, and a space is checked
without.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from trainables.registry import Count, Entry, Pair, Registry, Section, Share, choose, setting

if TYPE_CHECKING:
    from albumentations import BasicTransform

Augment = Callable[[np.ndarray, int], np.ndarray]


class AugmentConfig(Section):
    """Random changes to training images; 0 is off."""

    most: Annotated[int, Field(ge=0)] = setting(
        "largest number of the changes below that one image gets, drawn again each time; 0: all. The policy's come on top", 0
    )
    flip: Share = setting("probability of a left-right flip", 0.0)
    rotate: Annotated[float, Field(ge=0, le=180)] = setting("degrees to either side", 0.0)
    shift: Share = setting("largest shift, as a share of the side", 0.0)
    scale: Annotated[float, Field(ge=0, lt=1)] = setting("largest change of scale to either side", 0.0)
    zoom: Annotated[float, Field(ge=0, lt=1)] = setting("RandomResizedCrop: largest share of the area that is cut away", 0.0)
    brightness: Share = setting("largest relative change", 0.0)
    contrast: Share = setting("largest relative change", 0.0)
    saturation: Share = setting("largest relative change", 0.0)
    hue: Annotated[float, Field(ge=0, le=0.5)] = setting("largest turn of the colour circle, of which 1 is all", 0.0)
    pca: Share = setting("FancyPCA: lighting noise along the colours' main axes, as a share of their own deviation", 0.0)
    gray: Share = setting("probability of an image without colours", 0.0)
    clahe: Share = setting("probability of local contrast equalisation", 0.0)
    sharpen: Share = setting("probability of sharpening", 0.0)
    blur: Share = setting("probability of one of Gaussian, median and motion blur", 0.0)
    noise: Share = setting("largest standard deviation of Gaussian noise, on the scale 0 to 1", 0.0)
    elastic: Share = setting("probability of an elastic distortion", 0.0)
    distort: Share = setting("grid distortion: largest change of a cell's width, as a share of it", 0.0)
    tiles: Share = setting("probability of RandomGridShuffle: 2 x 2 tiles change places", 0.0)
    dropout: Share = setting("probability of coarse dropout (cutout): a few black boxes", 0.0)
    grid_dropout: Share = setting("probability of a grid of black boxes", 0.0)
    erase: Share = setting("probability of one erased rectangle", 0.0)
    erase_area: Pair = setting("smallest and largest area of an erased rectangle, as a share of the image's, at most 1", (0.02, 0.2))
    erase_aspect: Pair = setting("smallest and largest height of an erased rectangle, as a share of its width", (0.5, 2.0))
    policy: str = setting("further changes drawn from a fixed list", "none")

    @field_validator("erase_area", "erase_aspect")
    @classmethod
    def _ascending(cls, pair: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        low, high = pair
        if low > high:
            raise ValueError(f"{low} is above {high}; write the smaller first")
        if info.field_name == "erase_area" and high > 1:
            raise ValueError(f"{high} is more than the whole image; write at most 1")
        return pair


class RandSettings(AugmentConfig):
    """So many operations of one strength. Source: Cubuk et al., RandAugment, 2020."""

    ops: Count = setting("changes from the list for each image", 2)
    magnitude: Share = setting("strength of each, as a share of the strongest in the list", 0.3)


def _rand(config: RandSettings) -> list[BasicTransform]:
    from trainables.data.changes import Change, rand_augment

    return [Change(partial(rand_augment, ops=config.ops, magnitude=config.magnitude))]


def _trivial(config: AugmentConfig) -> list[BasicTransform]:
    from trainables.data.changes import Change, trivial_augment

    return [Change(trivial_augment)]


POLICIES: Registry[Entry[AugmentConfig]] = Registry(
    {  # settings -> list of transforms of albumentations
        "none": Entry(AugmentConfig, lambda config: []),
        "rand": Entry(RandSettings, _rand),
        "trivial": Entry(AugmentConfig, _trivial),
    },
    Entry,
    AugmentConfig,
)


def build_augment(config: AugmentConfig) -> Augment | None:
    """A function (images (n, h, w, 3) uint8, seed) -> images of the same shape, or None when everything is off.

    First come the changes of the policy, then those that are switched on, in the order of `CHANGES`; where `most` is fewer than
    those, exactly so many of them are drawn for each image and tried, each with its own probability.

    The same seed changes the same images in the same way. One such function must not be shared between threads.
    Raises: ConfigError for a policy that does not exist.
    """
    from trainables.data.changes import CHANGES, A

    steps = choose(POLICIES, config.policy, "augment/policy").build(config)
    changes: list[A.BasicTransform | A.BaseCompose] = [
        build(getattr(config, name), **_details(config, name)) for name, build in CHANGES.items() if getattr(config, name)
    ]
    steps += [A.SomeOf(changes, n=config.most)] if 0 < config.most < len(changes) else changes
    if not steps:
        return None
    pipeline = A.Compose(steps)

    def augment(images: np.ndarray, seed: int) -> np.ndarray:
        pipeline.set_random_seed(seed % 2**32)
        return np.stack([pipeline(image=image)["image"] for image in images])

    return augment


def _details(config: AugmentConfig, change: str) -> dict[str, Any]:
    """What the settings say of a change beside how much or how often: `erase_area` is the `area` of `erase`."""
    return {name.removeprefix(f"{change}_"): value for name, value in config if name.startswith(f"{change}_")}
