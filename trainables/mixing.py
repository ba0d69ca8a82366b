"""Mixing of photos within a batch, and of their targets to the same shares.

A mixer is a pure function of images (n, c, h, w), a permutation `partner` (n,) and the share `kept` of each photo that stays
its own; it returns the mixed images, in the same dtype and memory format, and the share that truly stayed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.choices import choose
from trainables.config import MixConfig


@dataclass(frozen=True)
class Mixer:
    """How to mix, how much and how often."""

    prob: float  # share of the batches that are mixed
    draw: Callable[[np.random.Generator], float]  # the share that each photo of the batch keeps
    apply: Callable[[Tensor, Tensor, float], tuple[Tensor, float]]  # (images, partner, kept) -> (mixed, kept_area)


def cutmix_vertical(images: Tensor, partner: Tensor, kept: float) -> tuple[Tensor, float]:
    """Take the right part of each photo's width from its partner, so that upright, centred faces stay whole faces.

    Returns: the mixed images, and the exact share of columns kept, which is `kept` rounded to a column.
    Source: Yun et al., CutMix, ICCV 2019, with a vertical cut at full height in place of the random box.
    """
    width = images.shape[-1]
    column = round(kept * width)
    mixed = images.clone()
    mixed[..., column:] = images[partner, :, :, column:]
    return mixed, column / width


def mixup(images: Tensor, partner: Tensor, kept: float) -> tuple[Tensor, float]:
    """Blend each photo with its partner: kept * photo + (1 - kept) * partner, rounded where pixels are integers.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """
    pixels = images if images.is_floating_point() else images.float()
    mixed = pixels.lerp(pixels[partner], 1 - kept)
    return (mixed if images.is_floating_point() else mixed.round().to(images.dtype)), kept


def mix_targets(rows: Tensor, partner: Tensor, kept_area: float) -> Tensor:
    """Target rows (n, classes) shared between each photo and its partner by the area that each has."""
    return rows.lerp(rows[partner], 1 - kept_area)


def _cutmix_vertical(config: MixConfig) -> Mixer:
    low, high = config.low, config.high
    return Mixer(config.prob, lambda rng: rng.uniform(low, high), cutmix_vertical)


def _mixup(config: MixConfig) -> Mixer:
    alpha = config.alpha
    return Mixer(config.prob, lambda rng: rng.beta(alpha, alpha), mixup)


MIXERS: dict[str, Callable[[MixConfig], Mixer | None]] = {
    "none": lambda config: None,
    "cutmix_vertical": _cutmix_vertical,
    "mixup": _mixup,
}


def build_mixer(config: MixConfig) -> Mixer | None:
    """The mixer that the section `mix` asks for; None leaves every batch alone. Raises ConfigError for an unknown name."""
    return choose(MIXERS, config.name, "mix/name")(config)


def mix_batch(
    mixer: Mixer | None, images: Tensor, targets: list[Tensor], classes: Sequence[int], rng: np.random.Generator
) -> tuple[Tensor, list[Tensor]]:
    """Mix a batch with the mixer's probability, or hand it back untouched.

    Args:
        images: (n, c, h, w), any device and dtype.
        targets: one tensor of class ids (n,) int64 per head, on the device of the images.
        classes: the number of classes per head.
        rng: draws whether, how much and with whom, once for the whole batch.
    Returns: images and targets; of a mixed batch, the targets are float32 rows (n, classes), otherwise the ids as given.
    """
    if mixer is None or rng.random() >= mixer.prob:
        return images, targets
    kept = mixer.draw(rng)
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    mixed, kept_area = mixer.apply(images, partner, kept)
    rows = [mix_targets(F.one_hot(ids, count).float(), partner, kept_area) for ids, count in zip(targets, classes, strict=True)]
    return mixed, rows
