"""Mixing of images within a batch, and of their targets to the same shares.

The mixing functions are pure: they take images (n, c, h, w), a permutation `partner` (n,) and the share `kept` of each image that
stays its own, and return the mixed images, in the same dtype and memory format, and the share that truly stayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import model_validator

from trainables.registry import Entry, Positive, Registry, Section, Share, choose, setting

if TYPE_CHECKING:  # a space is checked without torch, which takes seconds to import
    from torch import Tensor

Pair = Callable[["Sequence[Tensor]", np.random.Generator], np.ndarray]  # (targets per head, rng) -> partner (n,)


class MixConfig(Section):
    """Mixing of two images and of their targets."""

    name: str = setting("how images of a batch are mixed", "none")


class MixingSettings(MixConfig):
    prob: Share = setting("share of the batches that are mixed", 0.5)


class BetaSettings(MixingSettings):
    """The share kept is drawn from a Beta distribution."""

    alpha: Positive = setting("both parameters of the Beta distribution of the share kept", 0.2)


class VerticalSettings(MixingSettings):
    """The share of the width kept is drawn evenly."""

    low: Share = setting("smallest share of the width that the image keeps", 0.46)
    high: Share = setting("largest share of the width that the image keeps", 0.54)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"mix/low is {self.low}, above mix/high ({self.high}); lower mix/low or raise mix/high")
        return self


class IntraSettings(VerticalSettings):
    partner: Literal["batch", "train"] = setting(
        "where an image's partner of its class is drawn from: the others of its batch, where a rare class may have none, or all that train",
        "batch",
    )


def any_partner(targets: Sequence[Tensor], rng: np.random.Generator) -> np.ndarray:
    """A partner (n,) for each image, from the whole batch."""
    return rng.permutation(len(targets[0]))


def same_class_partner(targets: Sequence[Tensor], rng: np.random.Generator) -> np.ndarray:
    """A partner (n,) for each image, from the others of its class in every head; an image without another is its own partner.

    Of a head of tags the most certain one counts, and of a number nothing.
    """
    import torch

    ids = torch.stack([target.argmax(dim=1) if target.ndim == 2 else target for target in targets], dim=1)
    group = class_groups([*ids.cpu().numpy().T])
    partner = np.empty(len(group), dtype=np.int64)
    for one in range(group.max() + 1):
        members = rng.permutation(np.flatnonzero(group == one))
        partner[members] = np.roll(members, 1)
    return partner


def class_groups(targets: Sequence[np.ndarray]) -> np.ndarray:
    """The number (n,) of each image's class in every head; of a head of rows the most certain class or tag counts."""
    ids = np.stack([target.argmax(axis=1) if target.ndim == 2 else target for target in targets], axis=1)
    return np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class Fellows:
    """For each training image the others of its class, to draw a partner from."""

    order: np.ndarray  # (n,) positions, class by class
    first: np.ndarray  # (n,) where an image's class begins in that order
    size: np.ndarray  # (n,) images of its class
    place: np.ndarray  # (n,) of the image in the order

    @classmethod
    def of(cls, targets: Sequence[np.ndarray]) -> Self:
        """By the targets of all images, per head."""
        group = class_groups(targets)
        order, counts = np.argsort(group, kind="stable"), np.bincount(group)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        return cls(order, (counts.cumsum() - counts)[group], counts[group], place)

    def draw(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A partner (m,) of each of some images (m,), every other one of its class alike; one without another is its own partner."""
        first, size = self.first[images], self.size[images]
        drawn = rng.integers(np.maximum(size - 1, 1))
        own = self.place[images] - first
        return self.order[first + np.where(size > 1, drawn + (drawn >= own), 0)]


@dataclass(frozen=True)
class Mixer:
    """How to mix, with which partners and how often."""

    prob: float  # share of the batches that are mixed
    mix: Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, float]]  # (images, partner, rng) -> (mixed, kept_area)
    pair: Pair = any_partner
    from_train: bool = False  # whether partners come with the batch, drawn from all that train, and decide which batches are mixed


def cutmix(images: Tensor, partner: Tensor, kept: float, middle: tuple[float, float]) -> tuple[Tensor, float]:
    """Take a box from each image's partner that covers the share 1 - kept of the image, less what lies beyond its border.

    Args:
        middle: of the box, from the top and from the left, as shares of the sides.
    Returns: the mixed images, and the exact share of pixels kept.
    Source: Yun et al., CutMix, ICCV 2019.
    """
    height, width = images.shape[-2:]
    side = (1 - kept) ** 0.5
    top, bottom = _within(middle[0], side, height)
    left, right = _within(middle[1], side, width)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def cutmix_vertical(images: Tensor, partner: Tensor, kept: float) -> tuple[Tensor, float]:
    """Take the right part of each image's width from its partner, so that upright, centred faces stay whole faces.

    Returns: the mixed images, and the exact share of columns kept, which is `kept` rounded to a column.
    Source: Yun et al., CutMix, ICCV 2019, with a vertical cut at full height in place of the random box.
    """
    width = images.shape[-1]
    column = round(kept * width)
    mixed = images.clone()
    mixed[..., column:] = images[partner, :, :, column:]
    return mixed, column / width


def mixup(images: Tensor, partner: Tensor, kept: float) -> tuple[Tensor, float]:
    """Blend each image with its partner: kept * image + (1 - kept) * partner, rounded where pixels are integers.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """
    pixels = images if images.is_floating_point() else images.float()
    mixed = pixels.lerp(pixels[partner], 1 - kept)
    return (mixed if images.is_floating_point() else mixed.round().to(images.dtype)), kept


def mix_targets(rows: Tensor, partner: Tensor, kept_area: float) -> Tensor:
    """Target rows (n, classes) shared between each image and its partner by the area that each has."""
    return rows.lerp(rows[partner], 1 - kept_area)


def _within(middle: float, share: float, side: int) -> tuple[int, int]:
    """First pixel and end of a stretch of the side, cut off at its ends."""
    first = round((middle - share / 2) * side)
    return max(first, 0), min(first + round(share * side), side)


def _cutmix(config: BetaSettings) -> Mixer:
    alpha = config.alpha
    return Mixer(config.prob, lambda images, partner, rng: cutmix(images, partner, rng.beta(alpha, alpha), tuple(rng.random(2))))


def _cutmix_vertical(config: VerticalSettings, pair: Pair = any_partner) -> Mixer:
    low, high = config.low, config.high
    return Mixer(config.prob, lambda images, partner, rng: cutmix_vertical(images, partner, rng.uniform(low, high)), pair)


def _cutmix_intra(config: IntraSettings) -> Mixer:
    return replace(_cutmix_vertical(config, same_class_partner), from_train=config.partner == "train")


def _mixup(config: BetaSettings) -> Mixer:
    alpha = config.alpha
    return Mixer(config.prob, lambda images, partner, rng: mixup(images, partner, rng.beta(alpha, alpha)))


MIXERS: Registry[Entry[MixConfig]] = Registry(
    {  # settings -> Mixer, or None
        "none": Entry(MixConfig, lambda config: None),
        "mixup": Entry(BetaSettings, _mixup),
        "cutmix": Entry(BetaSettings, _cutmix),
        "cutmix_vertical": Entry(VerticalSettings, _cutmix_vertical),
        # Within a class a mixed image is a new one of that class, much as SMOTE makes them (Chawla et al., JAIR 2002).
        "cutmix_intra": Entry(IntraSettings, _cutmix_intra),
    },
    Entry,
    MixConfig,
)


def build_mixer(config: MixConfig) -> Mixer | None:
    """The mixer that the section `mix` asks for; None leaves every batch alone. Raises ConfigError for an unknown name."""
    return choose(MIXERS, config.name, "mix/name").build(config)


def mix_batch(
    mixer: Mixer | None,
    images: Tensor,
    targets: Sequence[Tensor],
    numbers: Tensor,
    classes: Sequence[int],
    rng: np.random.Generator,
    partners: tuple[Tensor, Sequence[Tensor], Tensor] | None = None,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Mix a batch with the mixer's probability, or return it unchanged.

    Args:
        images: (n, c, h, w), any device and dtype.
        targets: per head, on the device of the images: class ids (n,) int64 or rows (n, classes) float32.
        numbers: (n,) float32, on the device of the images; NaN where unknown.
        classes: the number of classes per head.
        rng: draws whether, how much and with which partners; how much once for the whole batch.
        partners: images, targets and numbers of the partners, in the order of the batch, for a mixer whose partners come with it.
    Returns: images, targets and numbers; of a mixed batch, the targets are float32 rows (n, classes), otherwise as given.
    """
    import torch

    from trainables.losses.classification import target_rows

    if mixer is None or (partners is None if mixer.from_train else rng.random() >= mixer.prob):
        return images, list(targets), numbers
    count = len(images)
    if mixer.from_train and partners is not None:
        # Behind the batch, so that mixing is the same; what the partners become is left out.
        images, numbers = torch.cat([images, partners[0]]), torch.cat([numbers, partners[2]])
        targets = [torch.cat(pair) for pair in zip(targets, partners[1], strict=True)]
        partner = torch.arange(2 * count, device=images.device).roll(count)
    else:
        partner = torch.from_numpy(mixer.pair(targets, rng)).to(images.device)
    mixed, kept_area = mixer.mix(images, partner, rng)
    rows = [mix_targets(target_rows(target, columns), partner, kept_area)[:count] for target, columns in zip(targets, classes, strict=True)]
    return mixed[:count], rows, numbers.lerp(numbers[partner], 1 - kept_area)[:count]
