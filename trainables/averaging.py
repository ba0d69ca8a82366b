"""A moving average of the weights, which is validated and kept in place of the weights themselves."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it: `update_parameters(model)` after each optimizer step.

    The decay rises to its value, (1 + n) / (10 + n) at step n, so that the poor first weights are soon forgotten.
    BatchNorm's statistics are averaged too.

    Source: Tarvainen and Valpola, Mean Teachers Are Better Role Models, NeurIPS 2017.
    """

    @torch.no_grad()
    def follow(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        keep = min(decay, (1 + int(steps)) / (10 + int(steps)))
        for old, new in zip(averaged, current, strict=True):
            # Integers, such as BatchNorm's count of batches, have no mean.
            old.lerp_(new, 1 - keep) if old.is_floating_point() else old.copy_(new)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
