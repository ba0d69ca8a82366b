"""Optimizers by name, with weight decay and learning rate where they belong, and the climb of sharpness-aware minimization."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import timm.optim
import torch
from torch import nn
from torch.optim import Optimizer

from trainables.config import OptimizerConfig
from trainables.models.assemble import Classifier
from trainables.models.layers import layer_scales
from trainables.registry import ConfigError, Mistake, choose


def _sgd(config: OptimizerConfig, groups: list[dict]) -> Optimizer:
    momentum, nesterov = config.momentum, config.nesterov
    if nesterov and not momentum:
        message = "looks ahead along the momentum, and optimizer/momentum is 0; raise that, or set this to false"
        raise ConfigError([Mistake("optimizer/nesterov", message)])
    return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=nesterov, fused=True)


# Weight decay is part of the gradient (L2) in sgd, adam, adagrad and madgrad; the others shrink the weights beside it (decoupled).
OPTIMIZERS: dict[str, Callable[[OptimizerConfig, list[dict]], Optimizer]] = {
    "sgd": _sgd,
    "adam": lambda config, groups: torch.optim.Adam(groups, lr=config.lr, fused=True),
    "adamw": lambda config, groups: torch.optim.AdamW(groups, lr=config.lr, fused=True),
    "adagrad": lambda config, groups: torch.optim.Adagrad(groups, lr=config.lr),
    "radam": lambda config, groups: torch.optim.RAdam(groups, lr=config.lr, decoupled_weight_decay=True),
    "nadam": lambda config, groups: torch.optim.NAdam(groups, lr=config.lr, decoupled_weight_decay=True),
    "lion": lambda config, groups: timm.optim.Lion(groups, lr=config.lr),
    "adamp": lambda config, groups: timm.optim.AdamP(groups, lr=config.lr),
    "madgrad": lambda config, groups: timm.optim.MADGRAD(groups, lr=config.lr, momentum=config.momentum),
}


def parameter_groups(model: Classifier, weight_decay: float, layer_decay: float) -> list[dict]:
    """The parameters to train, in a group for each pair of learning rate and weight decay.

    Norms and biases (at most one axis) have no weight decay. `lr_scale` of a group is its share of the learning rate, which is lower
    in earlier layers where `layer_decay` is below 1.
    """
    scales = layer_scales(model, layer_decay) if layer_decay < 1 else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scales.get(name, 1.0), decay), []).append(parameter)
    return [{"params": members, "lr_scale": scale, "weight_decay": decay} for (scale, decay), members in groups.items()]


@contextmanager
def climbed(model: nn.Module, radius: float) -> Iterator[None]:
    """Within it, weights stand `radius` away along their gradient, where the loss is highest nearby; then all is as it was.

    That includes BatchNorm's statistics: those of the weights nearby are of no use. The length of the gradient does not matter, so
    it may be scaled. One that overflowed shows no way, and the weights stay where they are.

    Source: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021.
    """
    moved = [parameter for parameter in model.parameters() if parameter.grad is not None]
    state = [tensor.detach() for tensor in (*moved, *model.buffers())]
    before = [tensor.clone() for tensor in state]
    with torch.no_grad():
        norm = nn.utils.get_total_norm([parameter.grad for parameter in moved])
        if norm.isfinite():
            for parameter in moved:
                parameter.add_(parameter.grad * (radius / (norm + 1e-12)))
    try:
        yield
    finally:
        for tensor, old in zip(state, before, strict=True):
            tensor.copy_(old)


def build_optimizer(config: OptimizerConfig, model: Classifier) -> Optimizer:
    """The optimizer that the section `optimizer` asks for, over what the model trains.

    Raises: ConfigError for an unknown name and for nesterov without momentum.
    """
    build = choose(OPTIMIZERS, config.name, "optimizer/name")
    return build(config, parameter_groups(model, config.weight_decay, config.layer_decay))
