"""Losses that are a statement about the whole batch: macro F1 with probabilities in place of decisions."""

from torch import Tensor

from trainables.losses.classification import cross_entropy, target_rows


def soft_f1(logits: Tensor, target: Tensor, epsilon: float = 1e-7) -> Tensor:
    """1 - the mean of 2 TP / (predicted + true) over the classes in the batch's target, in [0, 1].

    TP, predicted and true are sums over the batch of softmax probabilities and target shares. A class without a true image
    in the batch would have an F1 of 0 whatever the model says, so it is left out.

    Source: sigmoidF1 (Benedict et al., TMLR 2022) without its sigmoid, over softmax probabilities.
    """
    probabilities = logits.float().softmax(dim=1)
    rows = target_rows(target, logits.shape[1])
    true = rows.sum(dim=0)
    present = true > 0
    f1 = 2 * (rows * probabilities).sum(dim=0) / (probabilities.sum(dim=0) + true + epsilon)
    return 1 - (f1 * present).sum() / present.sum()


def ce_f1(logits: Tensor, target: Tensor, *, share: float) -> Tensor:
    """(1 - share) * cross-entropy in nats + share * soft F1, whose gradient alone fades where the model is surely wrong."""
    return (1 - share) * cross_entropy(logits, target) + share * soft_f1(logits, target)
