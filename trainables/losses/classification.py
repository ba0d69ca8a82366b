"""Losses that are a mean over images, for logits without constraints."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def target_rows(target: Tensor, classes: int) -> Tensor:
    """Float32 rows (n, classes) of class ids (n,), or of rows that are such already."""
    return (F.one_hot(target, classes) if target.ndim == 1 else target).float()


def class_weights(alpha: str | tuple[float, ...], beta: float, counts: np.ndarray) -> Tensor | None:
    """Weights (classes,) float32 as `loss/alpha` and `loss/beta` ask for them; None where all classes count alike.

    `inverse` is 1 / n, `effective` is (1 - beta) / (1 - beta^n) for a class of n training images; a class without one is
    weighted as if it had one. All of them, listed ones too, are then multiplied by the one number that makes their mean over the
    training images 1: they say how much classes count beside each other, and the size of the loss stays comparable.

    Args:
        counts: training images per class (classes,); soft labels make fractions.
    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019 (effective).
    """
    if alpha == "none":
        return None
    images = np.maximum(counts, 1)
    if alpha == "inverse":
        weights = 1 / images
    elif alpha == "effective":
        weights = (1 - beta) / (1 - beta**images)
    else:
        weights = np.array(alpha)
    return torch.tensor(weights / np.average(weights, weights=counts), dtype=torch.float32)


def cross_entropy(logits: Tensor, target: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """-sum_c w_c t_c log p_c in nats, with the share `smoothing` of each target spread over all classes.

    Args:
        weights: of the classes (classes,). The mean is over images, not over their weights, so that an image's share in the
            gradient does not depend on the others of its batch.
    Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label smoothing).
    """
    weights = None if weights is None else weights.to(logits.device)
    return F.cross_entropy(logits.float(), target_rows(target, logits.shape[1]), weights, label_smoothing=smoothing)


def focal(logits: Tensor, target: Tensor, *, gamma: float, weights: Tensor | None = None) -> Tensor:
    """-sum_c w_c t_c (1 - p_c)^gamma log p_c: images that are right already count less; gamma 0 is cross-entropy in nats.

    Args:
        weights: of the classes (classes,), alpha in the paper; the mean is over images.
    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    log_p = logits.float().log_softmax(dim=1)
    # Where p rounds to 1 and gamma < 1, the slope of the power is infinite and would make the gradient NaN.
    missing = (-log_p.expm1()).clamp_min(1e-12)
    rows = target_rows(target, logits.shape[1])
    weighted = rows if weights is None else rows * weights.to(rows.device)
    return -(weighted * missing**gamma * log_p).sum(dim=1).mean()


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy in nats of a sigmoid per class, the mean over images and classes.

    Classes do not compete, so a mixed image may be both of its classes. Which logit is largest still decides.

    Source: Wightman et al., ResNet strikes back, 2021.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), target_rows(target, logits.shape[1]))


def symmetric_ce(logits: Tensor, target: Tensor, *, reverse: float) -> Tensor:
    """Cross-entropy + reverse * -sum_c p_c log t_c, in nats, where the logarithm of shares below 1e-4 is that of 1e-4.

    The second part is bounded, so a wrong label cannot pull without limit.

    Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019; 1e-4 is from its published code.
    """
    rows = target_rows(target, logits.shape[1])
    reversed_ce = -(logits.float().softmax(dim=1) * rows.clamp_min(1e-4).log()).sum(dim=1).mean()
    return cross_entropy(logits, rows) + reverse * reversed_ce


def cosine_ce(logits: Tensor, target: Tensor, *, cosine: float) -> Tensor:
    """1 - the cosine between logits and target row, + cosine * cross-entropy of the logits brought to length 1.

    Only the direction of the logits counts; nothing trains their length.

    Source: Barz and Denzler, Deep Learning on Small Datasets without Pre-Training using Cosine Loss, WACV 2020.
    """
    rows = target_rows(target, logits.shape[1])
    # Logits of an untrained head can be all 0; the bound keeps the gradient there in size.
    unit = F.normalize(logits.float(), dim=1, eps=1e-4)
    distance = 1 - (unit * F.normalize(rows, dim=1)).sum(dim=1).mean()
    return distance + cosine * cross_entropy(unit, rows)
