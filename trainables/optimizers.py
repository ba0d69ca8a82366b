"""Optimizers by name, with weight decay where it belongs."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from trainables.choices import choose
from trainables.config import OptimizerConfig

OPTIMIZERS: dict[str, Callable[[OptimizerConfig, list[dict]], Optimizer]] = {
    "sgd": lambda config, groups: torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True),
    "adam": lambda config, groups: torch.optim.Adam(groups, lr=config.lr, fused=True),  # weight decay is coupled: L2 added to the gradient
    "adamw": lambda config, groups: torch.optim.AdamW(groups, lr=config.lr, fused=True),
}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups of the parameters to train: those with weight decay, then norms and biases (at most one axis) without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """The optimizer that the section `optimizer` asks for, over what the model trains. Raises ConfigError for an unknown name."""
    build = choose(OPTIMIZERS, config.name, "optimizer/name")
    return build(config, parameter_groups(model, config.weight_decay))
