"""Losses of tags: a sigmoid each, the mean over images and tags.

Contract: `loss(logits (n, tags), target (n, tags)) -> scalar`; targets are 0 or 1, or between where images are mixed or labels are soft.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def tag_weights(alpha: str | tuple[float, ...], beta: float, counts: np.ndarray, images: int) -> Tensor | None:
    """How much an image that has a tag counts beside one that has not, (tags,) float32; None where both count alike.

    `inverse` is images without it / images with it, `effective` is the same of effective numbers, (1 - beta^n) / (1 - beta). A tag that no
    training image has counts as if one had it.

    Args:
        counts: training images with each tag (tags,); soft labels make fractions.
    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019 (effective).
    """
    if alpha == "none":
        return None
    having = np.maximum(counts, 1)
    lacking = np.maximum(images - having, 1)
    if alpha == "inverse":
        weights = lacking / having
    elif alpha == "effective":
        weights = (1 - beta**lacking) / (1 - beta**having)
    else:
        weights = np.array(alpha)
    return torch.tensor(weights, dtype=torch.float32)


def cross_entropy(logits: Tensor, target: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in nats, with the share `smoothing` of each target spread over having and not having the tag.

    Args:
        weights: of images that have each tag (tags,).
    """
    weights = None if weights is None else weights.to(logits.device)
    rows = target.float() * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits.float(), rows, pos_weight=weights)


def focal(logits: Tensor, target: Tensor, *, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy times (1 - p)^gamma, where p is the probability of what is true: 0 is cross-entropy in nats.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    logits, rows = logits.float(), target.float()
    having, lacking = F.logsigmoid(logits), F.logsigmoid(-logits)
    # Where p rounds to 1 and gamma < 1, the slope of the power is infinite and would make the gradient NaN.
    missing, found = ((-log_p.expm1()).clamp_min(1e-12) for log_p in (having, lacking))
    positive = rows * missing**gamma * having
    if weights is not None:
        positive = positive * weights.to(logits.device)
    return -(positive + (1 - rows) * found**gamma * lacking).mean()


def asymmetric(logits: Tensor, target: Tensor, *, positive: float, negative: float, margin: float) -> Tensor:
    """Focal cross-entropy with a power for images that have a tag and another for those that have not, whose probabilities of it are first
    lowered by the margin, down to 0: what is surely not there counts nothing.

    Source: Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021.
    """
    rows, p = target.float(), logits.float().sigmoid()
    shifted = (p - margin).clamp_min(0)
    having = (1 - p).clamp_min(1e-12) ** positive * p.clamp_min(1e-8).log()
    lacking = shifted.clamp_min(1e-12) ** negative * (1 - shifted).clamp_min(1e-8).log()
    return -(rows * having + (1 - rows) * lacking).mean()
