"""Losses of a number, as distances in standard deviations of the training images' numbers; the mean over images.

Contract: `loss(predicted (n, 1), target (n, 1)) -> scalar`, both in the units of the data.
"""

import torch.nn.functional as F
from torch import Tensor


def smooth_l1(predicted: Tensor, target: Tensor, *, std: float) -> Tensor:
    """The distance, and half its square below one standard deviation.

    Source: Girshick, Fast R-CNN, ICCV 2015; Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics, 1964.
    """
    return F.smooth_l1_loss(predicted.float() / std, target.float() / std)


def l1(predicted: Tensor, target: Tensor, *, std: float) -> Tensor:
    """The distance."""
    return F.l1_loss(predicted.float() / std, target.float() / std)


def l2(predicted: Tensor, target: Tensor, *, std: float) -> Tensor:
    """The squared distance."""
    return F.mse_loss(predicted.float() / std, target.float() / std)
