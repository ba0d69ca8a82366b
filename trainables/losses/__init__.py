"""The losses of one head, by name.

Contract: `loss(logits (n, classes), target) -> scalar`, the mean over the batch. `target` is either class ids (n,) int64 or
rows (n, classes) of probabilities, as mixing makes them; an id and its one-hot row give the same loss. Logits may have any
floating dtype: the loss is computed in float32. Heads of tags and numbers have contracts of their own, see `tags` and `numbers`.

The functions stand in the files beside this one and are imported when a loss is built: a space is checked without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from trainables.data.targets import Kind, Scheme
from trainables.registry import ConfigError, Entry, Mistake, Positive, Registry, Section, Share, choose, setting

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Head:
    """What a loss may know of the head that it trains."""

    kind: Kind
    counts: np.ndarray  # training images of each class or tag (columns,)
    images: int  # that train
    std: float = 1.0  # of a number


class LossConfig(Section):
    """The loss that training minimises."""

    meaningful: ClassVar[bool] = True  # whether a model trained by it predicts meaningful probabilities

    name: str = setting("the loss of every head", "cross_entropy")
    ordinal: Literal["none", "coral", "number"] = setting(
        "heads that predict a single ordinal target: coral has its own loss; number makes classes of the number of loss/regression, "
        "by cuts that are fitted on the validation images after each epoch",
        "none",
    )
    regression: Annotated[float, Field(ge=0)] = setting(
        "weight of an additional SmoothL1 loss of the number (such as years) that a target is cut from", 0.0
    )

    @model_validator(mode="after")
    def _number_to_cut(self) -> Self:
        if self.ordinal == "number" and not self.regression:
            raise ValueError("loss/ordinal: number cuts the number that loss/regression trains, which is 0; set that above 0, such as 0.05")
        return self


Alpha = Literal["none", "inverse", "effective"] | Annotated[tuple[Positive, ...], Field(strict=False)]


class WeightedSettings(LossConfig):
    """A loss whose classes have weights."""

    alpha: Alpha | Annotated[tuple[Alpha, ...], Field(strict=False)] = setting(
        "weights of the classes: none, 1/n, 1/effective number, or a list of them; or a list with one of these for each head",
        "none",
        "none, inverse, effective, or a list with one weight above 0 for each class of the head; or a list of these, one for each head",
    )
    beta: Annotated[float, Field(ge=0, lt=1)] = setting("alpha effective: beta of the effective number (1 - beta^n) / (1 - beta)", 0.999)


class CrossEntropySettings(WeightedSettings):
    smoothing: Annotated[float, Field(ge=0, lt=1)] = setting("share of the target spread over all classes", 0.0)


class FocalSettings(WeightedSettings):
    gamma: Annotated[float, Field(ge=0)] = setting("0 is plain cross-entropy", 2.0)


class AsymmetricSettings(LossConfig):
    positive: Annotated[float, Field(ge=0)] = setting("focusing power for images with a tag; 0: all count the same", 1.0)
    negative: Annotated[float, Field(ge=0)] = setting("focusing power for images without it", 4.0)
    shift: Annotated[float, Field(ge=0, lt=1)] = setting("by how much the probabilities of absent tags are lowered", 0.05)


class CeF1Settings(LossConfig):
    share: Share = setting("share of soft F1 in the sum", 0.5)


class SymmetricCeSettings(LossConfig):
    reverse: Positive = setting("weight of the reversed cross-entropy", 1.0)


class CosineCeSettings(LossConfig):
    meaningful = False  # it trains the direction of the logits and not their length, so they are flat

    cosine: Positive = setting("weight of the cross-entropy that is added to the cosine distance", 0.1)


class CosineHeadSettings(LossConfig):
    """A loss whose logits are `scale` times cosines: its heads have unit weights and no bias."""

    scale: Positive = setting("factor from cosines to logits", 30.0)


class MarginSettings(CosineHeadSettings):
    margin: Annotated[float, Field(ge=0, le=1.5)] = setting(
        "margin of the true class: arcface in radians, cosface in cosine, ldam that of the rarest class", 0.3
    )


def _cross_entropy(settings: CrossEntropySettings, head: Head) -> Loss:
    from trainables.losses import classification, tags

    loss = tags.cross_entropy if head.kind == "tags" else classification.cross_entropy
    return partial(loss, smoothing=settings.smoothing, weights=_weights(settings, head))


def _focal(settings: FocalSettings, head: Head) -> Loss:
    from trainables.losses import classification, tags

    loss = tags.focal if head.kind == "tags" else classification.focal
    return partial(loss, gamma=settings.gamma, weights=_weights(settings, head))


def _weights(settings: WeightedSettings, head: Head) -> Tensor | None:
    from trainables.losses.classification import class_weights
    from trainables.losses.tags import tag_weights

    alpha: Any = settings.alpha  # of this head alone, see `build_losses`
    if head.kind == "tags":
        return tag_weights(alpha, settings.beta, head.counts, head.images)
    return class_weights(alpha, settings.beta, head.counts)


def _asymmetric(settings: AsymmetricSettings, head: Head) -> Loss:
    from trainables.losses.tags import asymmetric

    return partial(asymmetric, positive=settings.positive, negative=settings.negative, margin=settings.shift)


def _smooth_l1(settings: LossConfig, head: Head) -> Loss:
    from trainables.losses.numbers import smooth_l1

    return partial(smooth_l1, std=head.std)


def _l1(settings: LossConfig, head: Head) -> Loss:
    from trainables.losses.numbers import l1

    return partial(l1, std=head.std)


def _l2(settings: LossConfig, head: Head) -> Loss:
    from trainables.losses.numbers import l2

    return partial(l2, std=head.std)


def _soft_f1(settings: LossConfig, head: Head) -> Loss:
    from trainables.losses.soft_f1 import soft_f1

    return soft_f1


def _ce_f1(settings: CeF1Settings, head: Head) -> Loss:
    from trainables.losses.soft_f1 import ce_f1

    return partial(ce_f1, share=settings.share)


def _bce(settings: LossConfig, head: Head) -> Loss:
    from trainables.losses import classification, tags

    return tags.cross_entropy if head.kind == "tags" else classification.bce


def _symmetric_ce(settings: SymmetricCeSettings, head: Head) -> Loss:
    from trainables.losses.classification import symmetric_ce

    return partial(symmetric_ce, reverse=settings.reverse)


def _cosine_ce(settings: CosineCeSettings, head: Head) -> Loss:
    from trainables.losses.classification import cosine_ce

    return partial(cosine_ce, cosine=settings.cosine)


def _arcface(settings: MarginSettings, head: Head) -> Loss:
    from trainables.losses.margin import arcface

    return partial(arcface, scale=settings.scale, margin=settings.margin)


def _cosface(settings: MarginSettings, head: Head) -> Loss:
    from trainables.losses.margin import cosface

    return partial(cosface, scale=settings.scale, margin=settings.margin)


def _ldam(settings: MarginSettings, head: Head) -> Loss:
    from trainables.losses.margin import ldam, ldam_margins

    return partial(ldam, scale=settings.scale, margins=ldam_margins(head.counts, settings.margin))


@dataclass(frozen=True)
class LossEntry(Entry[LossConfig]):
    """A loss, and the kinds of target whose heads it is for."""

    kinds: tuple[Kind, ...] = ("classes",)


LOSSES: Registry[LossEntry] = Registry(
    {  # settings, Head -> Loss
        "cross_entropy": LossEntry(CrossEntropySettings, _cross_entropy, ("classes", "tags")),
        "focal": LossEntry(FocalSettings, _focal, ("classes", "tags")),
        "soft_f1": LossEntry(LossConfig, _soft_f1),
        "ce_f1": LossEntry(CeF1Settings, _ce_f1),
        "bce": LossEntry(LossConfig, _bce, ("classes", "tags")),
        "symmetric_ce": LossEntry(SymmetricCeSettings, _symmetric_ce),
        "cosine_ce": LossEntry(CosineCeSettings, _cosine_ce),
        "arcface": LossEntry(MarginSettings, _arcface),
        "cosface": LossEntry(MarginSettings, _cosface),
        "ldam": LossEntry(MarginSettings, _ldam),
        "asymmetric": LossEntry(AsymmetricSettings, _asymmetric, ("tags",)),
        "smooth_l1": LossEntry(LossConfig, _smooth_l1, ("number",)),
        "l1": LossEntry(LossConfig, _l1, ("number",)),
        "l2": LossEntry(LossConfig, _l2, ("number",)),
    },
    LossEntry,
    LossConfig,
)
# What trains a head of a kind that the chosen loss is not for.
DEFAULTS: dict[Kind, str] = {"classes": "cross_entropy", "tags": "cross_entropy", "number": "smooth_l1"}


def loss_of(config: LossConfig, kind: Kind) -> LossConfig:
    """The loss that trains heads of a kind: the chosen one where it is for that kind, else the kind's default. Raises: ConfigError for an
    unknown name."""
    if kind in choose(LOSSES, config.name, "loss/name").kinds:
        return config
    return LOSSES[DEFAULTS[kind]].settings(name=DEFAULTS[kind])


def build_losses(config: LossConfig, schemes: Sequence[Scheme], heads: Sequence[Head]) -> list[Loss]:
    """The loss of each head: CORAL's where `loss/ordinal` names an ordinal head and the head fits it, else the one of `loss_of`.

    Args:
        schemes: the targets of each head.
        heads: what is known of each.
    Raises: ConfigError for an unknown name and for settings that do not fit the heads.
    """
    from trainables.losses.ordinal import coral, ordinal_head

    ordinal = [config.ordinal != "none" and ordinal_head(scheme) for scheme in schemes]
    mistakes = []
    if config.ordinal != "none" and not any(ordinal):
        mistakes.append(Mistake("loss/ordinal", _no_ordinal_head(config.ordinal, schemes)))
    if alphas := alphas_by_head(config):
        if len(alphas) != len(schemes):
            raise ConfigError([*mistakes, _wrong_alphas(len(alphas), schemes)])
        chosen = [loss_of(config.model_copy(update={"alpha": alpha}), one.kind) for one, alpha in zip(schemes, alphas, strict=True)]
    else:
        chosen = [loss_of(config, scheme.kind) for scheme in schemes]
    for scheme, own, is_ordinal in zip(schemes, chosen, ordinal, strict=True):
        if isinstance(own, WeightedSettings) and isinstance(own.alpha, tuple) and len(own.alpha) != scheme.classes and not is_ordinal:
            mistakes.append(_wrong_weights(len(own.alpha), scheme))
    if mistakes:
        raise ConfigError(mistakes)
    return [
        coral if is_ordinal else LOSSES[own.name].build(own, head) for own, head, is_ordinal in zip(chosen, heads, ordinal, strict=True)
    ]


def alphas_by_head(config: LossConfig) -> tuple[Alpha, ...]:
    """The alpha of each head, where each has one of its own; empty: all have the same."""
    alpha = getattr(config, "alpha", ())
    return alpha if isinstance(alpha, tuple) and any(isinstance(one, str | tuple) for one in alpha) else ()


def _no_ordinal_head(name: str, schemes: Sequence[Scheme]) -> str:
    needs = f"{name} needs a head of an ordinal target alone"
    ordinal = [target.name for scheme in schemes for target in scheme.targets if target.cuts]
    if not ordinal:
        return f"{needs}, and no target of this task is cut from a number; take none"
    return f"{needs}, such as {ordinal[0]}; set task to heads or to {ordinal[0]}, or take none"


def _wrong_alphas(given: int, schemes: Sequence[Scheme]) -> Mistake:
    heads = "; ".join(" x ".join(scheme.names) for scheme in schemes)
    count = f"{len(schemes)} heads" if len(schemes) > 1 else "one head"
    return Mistake(
        "loss/alpha", f"has {given} entries, one a head, but the task has {count} ({heads}); give {len(schemes)}, or one for all"
    )


def _wrong_weights(given: int, scheme: Scheme) -> Mistake:
    return Mistake(
        "loss/alpha",
        f"has {given} weights, but the head of {' x '.join(scheme.names)} has {scheme.classes} {scheme.kind}; "
        f"give {scheme.classes}, or none, inverse or effective, which fit every head",
    )
