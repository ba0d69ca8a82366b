"""Optimizers by name, with weight decay and learning rate per parameter, and the first step of sharpness-aware minimization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from trainables.registry import ConfigError, Entry, Mistake, Positive, Registry, Section, choose, setting

if TYPE_CHECKING:  # a space is checked without torch, which takes seconds to import
    from torch import nn
    from torch.optim import Optimizer


class OptimizerConfig(Section):
    """How gradients change the weights."""

    name: str = setting("the optimizer", "adamw")
    lr: Positive = setting("peak learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = setting("weight decay, not of norms and biases", 0.01)
    layer_decay: Annotated[float, Field(gt=0, le=1)] = setting("learning rate of each layer, as a share of that of the layer above it", 1.0)
    sam: Annotated[float, Field(ge=0)] = setting("radius of sharpness-aware minimization, which takes two passes per step; 0 is off", 0.0)


class MomentumSettings(OptimizerConfig):
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting("momentum; 0 is none", 0.9)


class SgdSettings(MomentumSettings):
    nesterov: bool = setting("whether the momentum is Nesterov's", False)


def _sgd(config: SgdSettings, groups: list[dict]) -> Optimizer:
    import torch

    if config.nesterov and not config.momentum:
        message = "needs momentum, and optimizer/momentum is 0; raise that, or set this to false"
        raise ConfigError([Mistake("optimizer/nesterov", message)])
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)


def _madgrad(config: MomentumSettings, groups: list[dict]) -> Optimizer:
    import timm.optim

    return timm.optim.MADGRAD(groups, lr=config.lr, momentum=config.momentum)


def _torch(name: str, **options: bool) -> Callable[[OptimizerConfig, list[dict]], Optimizer]:
    def build(config: OptimizerConfig, groups: list[dict]) -> Optimizer:
        import torch

        return getattr(torch.optim, name)(groups, lr=config.lr, **options)

    return build


def _timm(name: str) -> Callable[[OptimizerConfig, list[dict]], Optimizer]:
    def build(config: OptimizerConfig, groups: list[dict]) -> Optimizer:
        import timm.optim

        return getattr(timm.optim, name)(groups, lr=config.lr)

    return build


# Weight decay is part of the gradient (L2) in sgd, adam, adagrad and madgrad; the others shrink the weights beside it (decoupled).
OPTIMIZERS: Registry[Entry[OptimizerConfig]] = Registry(
    {  # settings, parameter groups -> Optimizer
        "sgd": Entry(SgdSettings, _sgd),
        "adam": Entry(OptimizerConfig, _torch("Adam", fused=True)),
        "adamw": Entry(OptimizerConfig, _torch("AdamW", fused=True)),
        "adagrad": Entry(OptimizerConfig, _torch("Adagrad")),
        "radam": Entry(OptimizerConfig, _torch("RAdam", decoupled_weight_decay=True)),
        "nadam": Entry(OptimizerConfig, _torch("NAdam", decoupled_weight_decay=True)),
        "lion": Entry(OptimizerConfig, _timm("Lion")),
        "adamp": Entry(OptimizerConfig, _timm("AdamP")),
        "madgrad": Entry(MomentumSettings, _madgrad),
    },
    Entry,
    OptimizerConfig,
)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict]:
    """The parameters to train, in a group for each pair of learning rate and weight decay.

    Norms and biases (at most one axis) have no weight decay. `lr_scale` of a group is its share of the learning rate, which is lower
    in earlier layers where `layer_decay` is below 1.
    """
    from trainables.models.layers import layer_scales

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
    import torch
    from torch import nn

    moved = [(parameter, parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    state = [tensor.detach() for tensor in (*(parameter for parameter, _ in moved), *model.buffers())]
    before = [tensor.clone() for tensor in state]
    with torch.no_grad():
        norm = nn.utils.get_total_norm([gradient for _, gradient in moved])
        if norm.isfinite():
            for parameter, gradient in moved:
                parameter.add_(gradient * (radius / (norm + 1e-12)))
    try:
        yield
    finally:
        for tensor, old in zip(state, before, strict=True):
            tensor.copy_(old)


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """The optimizer that the section `optimizer` asks for, over what the model trains.

    Raises: ConfigError for an unknown name and for nesterov without momentum.
    """
    entry = choose(OPTIMIZERS, config.name, "optimizer/name")
    return entry.build(config, parameter_groups(model, config.weight_decay, config.layer_decay))
