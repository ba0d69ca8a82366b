"""The losses of one head, by name.

Contract: `loss(logits (n, classes), target) -> scalar`, the mean over the batch. `target` is either class ids (n,) int64 or
rows (n, classes) of probabilities, as mixing makes them; an id and its one-hot row give the same loss. Logits may have any
floating dtype: the loss is computed in float32.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from trainables.choices import choose
from trainables.config import LossConfig
from trainables.losses.classification import cross_entropy, focal
from trainables.losses.soft_f1 import soft_f1

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Callable[[LossConfig], Loss]] = {
    "cross_entropy": lambda config: partial(cross_entropy, smoothing=config.smoothing),
    "focal": lambda config: partial(focal, gamma=config.gamma),
    "soft_f1": lambda config: soft_f1,
}


def build_loss(config: LossConfig) -> Loss:
    """The loss that the section `loss` asks for. Raises ConfigError for an unknown name."""
    return choose(LOSSES, config.name, "loss/name")(config)
