"""Losses that are a mean over photos: cross-entropy and focal loss."""

import torch.nn.functional as F
from torch import Tensor


def target_rows(target: Tensor, classes: int) -> Tensor:
    """Float32 rows (n, classes) of class ids (n,), or of rows that are such already."""
    return (F.one_hot(target, classes) if target.ndim == 1 else target).float()


def cross_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy in nats, with the share `smoothing` of each target spread over all classes.

    Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label smoothing).
    """
    return F.cross_entropy(logits.float(), target_rows(target, logits.shape[1]), label_smoothing=smoothing)


def focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """-sum_c t_c (1 - p_c)^gamma log p_c: photos that are right already count less; gamma 0 is cross-entropy in nats.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    log_p = logits.float().log_softmax(dim=1)
    # Where p rounds to 1 and gamma < 1, the slope of the power is infinite and would make the gradient NaN.
    missing = (-log_p.expm1()).clamp_min(1e-12)
    return -(target_rows(target, logits.shape[1]) * missing**gamma * log_p).sum(dim=1).mean()
