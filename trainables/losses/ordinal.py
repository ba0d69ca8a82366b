"""A loss for classes that have an order, such as bands of a number: how far off counts."""

import torch
from torch import Tensor

from trainables.data.targets import Scheme
from trainables.losses.classification import target_rows


def ordinal_head(scheme: Scheme) -> bool:
    """Whether a head of these targets predicts a single target that is cut from a number."""
    return len(scheme.targets) == 1 and bool(scheme.targets[0].cuts)


def coral(logits: Tensor, target: Tensor) -> Tensor:
    """The sum over the cuts of the binary cross-entropy of "beyond this cut", in nats; the mean over images.

    The softmax of the logits has the probabilities of the classes, so P(y > k) is that of all classes after k added up. A
    target row counts as beyond a cut with the share that it gives to the classes there.

    Source: Cao, Mirjalili and Raschka, Rank Consistent Ordinal Regression for Neural Networks with Application to Age
        Estimation, Pattern Recognition Letters 2020.
    """
    log_p = logits.float().log_softmax(dim=1)
    rows = target_rows(target, logits.shape[1])
    total = torch.zeros(len(rows), device=log_p.device)
    for cut in range(1, logits.shape[1]):
        below, beyond = rows[:, :cut].sum(dim=1), rows[:, cut:].sum(dim=1)
        total = total - below * log_p[:, :cut].logsumexp(dim=1) - beyond * log_p[:, cut:].logsumexp(dim=1)
    return total.mean()
