"""The losses of one head, by name.

Contract: `loss(logits (n, classes), target) -> scalar`, the mean over the batch. `target` is either class ids (n,) int64 or
rows (n, classes) of probabilities, as mixing makes them; an id and its one-hot row give the same loss. Logits may have any
floating dtype: the loss is computed in float32.

The functions stand in the files beside this one and are imported when a loss is built: a space is checked without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from trainables.data.labels import Scheme
from trainables.registry import ConfigError, Entry, Mistake, Positive, Section, Share, choose, setting

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


class LossConfig(Section):
    """What training makes small."""

    meaningful: ClassVar[bool] = True  # whether the probabilities of a model trained by it mean anything

    name: str = setting("the loss of every head", "cross_entropy")
    ordinal: Literal["none", "coral"] = setting("how heads of an ordinal attribute alone are trained", "none")
    regression: Annotated[float, Field(ge=0)] = setting(
        "weight of the SmoothL1 distance between a predicted number and the image's (years), beside the classes", 0.0
    )


class WeightedSettings(LossConfig):
    """A loss whose classes have weights."""

    alpha: Literal["none", "inverse", "effective"] | Annotated[tuple[Positive, ...], Field(strict=False)] = setting(
        "weights of the classes: none, 1/n, 1/effective number, or a list of them",
        "none",
        "none, inverse, effective, or a list with one weight above 0 for each class of the head",
    )
    beta: Annotated[float, Field(ge=0, lt=1)] = setting("alpha effective: how slowly further images of a class stop to count", 0.999)


class CrossEntropySettings(WeightedSettings):
    smoothing: Annotated[float, Field(ge=0, lt=1)] = setting("share of the target spread over all classes", 0.0)


class FocalSettings(WeightedSettings):
    gamma: Annotated[float, Field(ge=0)] = setting("0 is plain cross-entropy", 2.0)


class CeF1Settings(LossConfig):
    share: Share = setting("share of soft F1 in the sum", 0.5)


class SymmetricCeSettings(LossConfig):
    reverse: Positive = setting("weight of the reversed cross-entropy", 1.0)


class CosineCeSettings(LossConfig):
    meaningful = False  # it trains the direction of the logits and not their length, so they are flat

    cosine: Positive = setting("weight of the cross-entropy beside the cosine distance", 0.1)


class CosineHeadSettings(LossConfig):
    """A loss whose logits are `scale` times cosines: its heads have unit weights and no bias."""

    scale: Positive = setting("what cosines are multiplied by to be logits", 30.0)


class MarginSettings(CosineHeadSettings):
    margin: Annotated[float, Field(ge=0, le=1.5)] = setting(
        "what the true class is asked for: arcface radians, cosface cosine, ldam the margin of the rarest class", 0.3
    )


def _cross_entropy(settings: CrossEntropySettings, counts: np.ndarray) -> Loss:
    from trainables.losses.classification import class_weights, cross_entropy

    return partial(cross_entropy, smoothing=settings.smoothing, weights=class_weights(settings.alpha, settings.beta, counts))


def _focal(settings: FocalSettings, counts: np.ndarray) -> Loss:
    from trainables.losses.classification import class_weights, focal

    return partial(focal, gamma=settings.gamma, weights=class_weights(settings.alpha, settings.beta, counts))


def _soft_f1(settings: LossConfig, counts: np.ndarray) -> Loss:
    from trainables.losses.soft_f1 import soft_f1

    return soft_f1


def _ce_f1(settings: CeF1Settings, counts: np.ndarray) -> Loss:
    from trainables.losses.soft_f1 import ce_f1

    return partial(ce_f1, share=settings.share)


def _bce(settings: LossConfig, counts: np.ndarray) -> Loss:
    from trainables.losses.classification import bce

    return bce


def _symmetric_ce(settings: SymmetricCeSettings, counts: np.ndarray) -> Loss:
    from trainables.losses.classification import symmetric_ce

    return partial(symmetric_ce, reverse=settings.reverse)


def _cosine_ce(settings: CosineCeSettings, counts: np.ndarray) -> Loss:
    from trainables.losses.classification import cosine_ce

    return partial(cosine_ce, cosine=settings.cosine)


def _arcface(settings: MarginSettings, counts: np.ndarray) -> Loss:
    from trainables.losses.margin import arcface

    return partial(arcface, scale=settings.scale, margin=settings.margin)


def _cosface(settings: MarginSettings, counts: np.ndarray) -> Loss:
    from trainables.losses.margin import cosface

    return partial(cosface, scale=settings.scale, margin=settings.margin)


def _ldam(settings: MarginSettings, counts: np.ndarray) -> Loss:
    from trainables.losses.margin import ldam, ldam_margins

    return partial(ldam, scale=settings.scale, margins=ldam_margins(counts, settings.margin))


LOSSES: dict[str, Entry[LossConfig]] = {  # settings, training images per class (classes,) -> Loss
    "cross_entropy": Entry(CrossEntropySettings, _cross_entropy),
    "focal": Entry(FocalSettings, _focal),
    "soft_f1": Entry(LossConfig, _soft_f1),
    "ce_f1": Entry(CeF1Settings, _ce_f1),
    "bce": Entry(LossConfig, _bce),
    "symmetric_ce": Entry(SymmetricCeSettings, _symmetric_ce),
    "cosine_ce": Entry(CosineCeSettings, _cosine_ce),
    "arcface": Entry(MarginSettings, _arcface),
    "cosface": Entry(MarginSettings, _cosface),
    "ldam": Entry(MarginSettings, _ldam),
}


def build_losses(config: LossConfig, heads: Sequence[Scheme], counts: Sequence[np.ndarray]) -> list[Loss]:
    """The loss of each head: CORAL where `loss/ordinal` asks for it and the head fits it, else the one of `loss/name`.

    Args:
        heads: the attributes of each head.
        counts: training images per class, (classes,) for each head.
    Raises: ConfigError for an unknown name and for settings that do not fit the heads.
    """
    from trainables.losses.ordinal import coral, ordinal_head

    ordinal = [config.ordinal == "coral" and ordinal_head(head) for head in heads]
    mistakes = []
    if config.ordinal == "coral" and not any(ordinal):
        mistakes.append(Mistake("loss/ordinal", _no_ordinal_head(heads)))
    build = choose(LOSSES, config.name, "loss/name").build
    if isinstance(config, WeightedSettings) and isinstance(config.alpha, tuple):
        others = [head for head, is_ordinal in zip(heads, ordinal, strict=True) if not is_ordinal]
        mistakes += _wrong_weights(len(config.alpha), others)
    if mistakes:
        raise ConfigError(mistakes)
    return [coral if is_ordinal else build(config, count) for is_ordinal, count in zip(ordinal, counts, strict=True)]


def _no_ordinal_head(heads: Sequence[Scheme]) -> str:
    needs = "coral needs a head of an ordinal attribute alone"
    ordinal = [attribute.name for head in heads for attribute in head.attributes if attribute.cuts]
    if not ordinal:
        return f"{needs}, and no attribute of this task is cut from a number; take none"
    return f"{needs}, such as {ordinal[0]}; set task to heads or to {ordinal[0]}, or take none"


def _wrong_weights(given: int, heads: Sequence[Scheme]) -> list[Mistake]:
    return [
        Mistake(
            "loss/alpha",
            f"has {given} weights, but the head of {' x '.join(head.names)} has {head.classes} classes; "
            f"give {head.classes}, or take none, inverse or effective, which fit every head",
        )
        for head in heads
        if head.classes != given
    ]
