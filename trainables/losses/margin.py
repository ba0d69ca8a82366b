"""Losses that ask the true class for a margin. Logits are `scale` times the cosine between features and class weights.

The margin exists in the loss alone, so the plain logits are the model's answer. A mixed image gives every class the part of the
margin that is the class's share in the target.
"""

import math

import numpy as np
import torch
from torch import Tensor

from trainables.losses.classification import cross_entropy, target_rows


def arcface(logits: Tensor, target: Tensor, *, scale: float, margin: float) -> Tensor:
    """Cross-entropy where the true class has cos(theta + margin) for cos(theta); the margin in radians, in [0, pi/2].

    Where theta + margin is beyond pi, the cosine would rise again; cos(theta) - margin * sin(margin) keeps falling there.

    Source: Deng et al., ArcFace, CVPR 2019, and its published code (beyond pi).
    """
    cosine = logits.float() / scale
    # The root has an infinite slope at cosines of -1 and 1, and rounding can lead beyond them.
    sine = (1 - cosine.square()).clamp_min(1e-6).sqrt()
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond_pi = cosine < -math.cos(margin)
    return _blended(cosine, torch.where(beyond_pi, cosine - margin * math.sin(margin), turned), target, scale)


def cosface(logits: Tensor, target: Tensor, *, scale: float, margin: float) -> Tensor:
    """Cross-entropy where the true class has cos(theta) - margin for cos(theta).

    Source: Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018.
    """
    cosine = logits.float() / scale
    return _blended(cosine, cosine - margin, target, scale)


def ldam(logits: Tensor, target: Tensor, *, scale: float, margins: Tensor) -> Tensor:
    """CosFace with a margin for each class (classes,); `ldam_margins` makes them.

    Source: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019.
    """
    cosine = logits.float() / scale
    return _blended(cosine, cosine - margins.to(cosine.device), target, scale)


def ldam_margins(counts: np.ndarray, margin: float) -> Tensor:
    """Margins (classes,) float32 proportional to n^(-1/4), where `margin` is that of the rarest class with a training image.

    A class without one has the same margin: none is larger.

    Args:
        counts: training images per class (classes,).
    Source: Cao et al., NeurIPS 2019.
    """
    rarest = counts[counts > 0].min()
    return torch.tensor(margin * (rarest / np.maximum(counts, rarest)) ** 0.25, dtype=torch.float32)


def _blended(cosine: Tensor, margined: Tensor, target: Tensor, scale: float) -> Tensor:
    rows = target_rows(target, cosine.shape[1])
    return cross_entropy(scale * (rows * margined + (1 - rows) * cosine), rows)
