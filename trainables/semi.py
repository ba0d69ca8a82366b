"""Semi-supervised learning: what images without labels teach beside those with labels.

Every batch brings so many of them for each labelled image, each in a weakly and a strongly augmented version. The weak version moves
the image a little, with the flips that the trial's own augmentation has; the strong one is changed further by RandAugment and Cutout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from trainables.data.augment import AugmentConfig, RandSettings
from trainables.registry import Count, Entry, Positive, Registry, Section, Share, choose, setting

if TYPE_CHECKING:  # a space is checked without torch, which takes seconds to import
    from torch import Tensor

NO_UNLABELLED = "learns from images without labels, and there are none; name their folders in data/unlabelled, or write none"
FOR_CLASSES = "needs classes, of which one is the most probable, and these are none"
SHIFT = 0.125  # of the side, at most, as in FixMatch


class SemiConfig(Section):
    """Learning from images without labels (data/unlabelled), beside the labelled ones."""

    name: str = setting("how images without labels are learned from", "none")


class UnlabelledSettings(SemiConfig):
    """Every batch has images without labels, too."""

    weight: Positive = setting("weight of their loss beside that of the labelled images", 1.0)
    ratio: Count = setting("images without labels for each labelled image of a batch", 2)
    ops: Count = setting("RandAugment of the strong version: changes for each image", 2)
    magnitude: Share = setting("RandAugment of the strong version: strength of each change", 0.5)


class FixMatchSettings(UnlabelledSettings):
    confidence: Share = setting("smallest probability of the weak version's most probable class with which an image counts", 0.95)


@dataclass(frozen=True)
class Semi:
    """How images without labels are learned from."""

    loss: Callable[[Tensor, Tensor], Tensor]  # logits (n, classes) of the weak, and of the strong versions -> a number
    weight: float
    ratio: int
    ops: int
    magnitude: float

    def weak(self, augment: AugmentConfig) -> AugmentConfig:
        """How the weak version is made, where labelled images are augmented so."""
        return AugmentConfig(flip=augment.flip, shift=SHIFT)

    def strong(self, augment: AugmentConfig) -> AugmentConfig:
        """How the strong version is made."""
        return RandSettings(policy="rand", ops=self.ops, magnitude=self.magnitude, flip=augment.flip, shift=SHIFT, dropout=1.0)


def fixmatch(weak: Tensor, strong: Tensor, confidence: float) -> Tensor:
    """Cross-entropy of the strong versions with the most probable classes of the weak ones, the mean over all images.

    An image whose weak version is less sure than `confidence` counts as 0. Nothing is learned through the weak versions.

    Args:
        weak: logits (n, classes).
        strong: logits (n, classes).
    Source: Sohn et al., FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence, NeurIPS 2020.
    """
    from torch.nn.functional import cross_entropy

    sure, label = weak.detach().float().softmax(dim=1).max(dim=1)
    return (cross_entropy(strong.float(), label, reduction="none") * (sure >= confidence)).mean()


def _fixmatch(config: FixMatchSettings) -> Semi:
    return Semi(partial(fixmatch, confidence=config.confidence), config.weight, config.ratio, config.ops, config.magnitude)


SEMI: Registry[Entry[SemiConfig]] = Registry(
    {  # settings -> Semi, or None
        "none": Entry(SemiConfig, lambda config: None),
        "fixmatch": Entry(FixMatchSettings, _fixmatch),
    },
    Entry,
    SemiConfig,
)


def build_semi(config: SemiConfig) -> Semi | None:
    """What the section `semi` asks for; None: images without labels are not learned from. Raises ConfigError for an unknown name."""
    return choose(SEMI, config.name, "semi/name").build(config)
