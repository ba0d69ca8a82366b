"""The losses of one head, by name.

Contract: `loss(logits (n, classes), target) -> scalar`, the mean over the batch. `target` is either class ids (n,) int64 or
rows (n, classes) of probabilities, as mixing makes them; an id and its one-hot row give the same loss. Logits may have any
floating dtype: the loss is computed in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from trainables.config import LossConfig
from trainables.data.labels import Scheme
from trainables.losses.classification import bce, class_weights, cosine_ce, cross_entropy, focal, symmetric_ce
from trainables.losses.margin import arcface, cosface, ldam, ldam_margins
from trainables.losses.ordinal import coral, ordinal_head
from trainables.losses.soft_f1 import ce_f1, soft_f1
from trainables.registry import ConfigError, Mistake, choose

Loss = Callable[[Tensor, Tensor], Tensor]

# From the section and the training photos per class (classes,).
LOSSES: dict[str, Callable[[LossConfig, np.ndarray], Loss]] = {
    "cross_entropy": lambda c, counts: partial(cross_entropy, smoothing=c.smoothing, weights=class_weights(c, counts)),
    "focal": lambda c, counts: partial(focal, gamma=c.gamma, weights=class_weights(c, counts)),
    "soft_f1": lambda c, counts: soft_f1,
    "ce_f1": lambda c, counts: partial(ce_f1, share=c.share),
    "bce": lambda c, counts: bce,
    "symmetric_ce": lambda c, counts: partial(symmetric_ce, reverse=c.reverse),
    "cosine_ce": lambda c, counts: partial(cosine_ce, cosine=c.cosine),
    "arcface": lambda c, counts: partial(arcface, scale=c.scale, margin=c.margin),
    "cosface": lambda c, counts: partial(cosface, scale=c.scale, margin=c.margin),
    "ldam": lambda c, counts: partial(ldam, scale=c.scale, margins=ldam_margins(counts, c.margin)),
}
WEIGHTED = frozenset({"cross_entropy", "focal"})  # losses that know loss/alpha
# Losses whose logits are loss/scale times cosines: their heads have unit weights and no bias.
COSINE = frozenset({"arcface", "cosface", "ldam"})


def build_losses(config: LossConfig, heads: Sequence[Scheme], counts: Sequence[np.ndarray]) -> list[Loss]:
    """The loss of each head: CORAL where `loss/ordinal` asks for it and the head fits it, else the one of `loss/name`.

    Args:
        heads: the attributes of each head.
        counts: training photos per class, (classes,) for each head.
    Raises: ConfigError for an unknown name and for settings that do not fit the heads.
    """
    ordinal = [config.ordinal == "coral" and ordinal_head(head) for head in heads]
    mistakes = []
    if config.ordinal == "coral" and not any(ordinal):
        mistakes.append(Mistake("loss/ordinal", _no_ordinal_head(heads)))
    if not all(ordinal):
        build = choose(LOSSES, config.name, "loss/name")
        if config.name in WEIGHTED and isinstance(config.alpha, tuple):
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
