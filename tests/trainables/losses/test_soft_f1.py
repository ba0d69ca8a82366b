import pytest
import torch
import torch.nn.functional as F

from trainables.losses.classification import cross_entropy
from trainables.losses.soft_f1 import ce_f1, soft_f1


@pytest.mark.parametrize("seed", range(5))
def test_soft_f1_does_not_see_how_probability_lies_among_classes_absent_from_the_batch(batch, seed):
    logits, _, _ = batch(seed)
    ids = torch.arange(12) % 6
    shuffled = torch.cat([logits[:, :6], logits[:, 6:].flip(1)], dim=1)
    torch.testing.assert_close(soft_f1(logits, ids), soft_f1(shuffled, ids))


def test_soft_f1_counts_a_rare_class_as_much_as_a_frequent_one():
    ids = torch.tensor([0] * 9 + [1])
    everything_is_0 = 30.0 * F.one_hot(torch.zeros(10, dtype=torch.int64), 18)
    f1_of_0 = 2 * 9 / (9 + 10)
    assert soft_f1(everything_is_0, ids).item() == pytest.approx(1 - f1_of_0 / 2)


@pytest.mark.parametrize("seed", range(5))
def test_ce_f1_is_cross_entropy_at_share_0_and_soft_f1_at_share_1(batch, seed):
    logits, _, rows = batch(seed)
    assert ce_f1(logits, rows, share=0.0) == cross_entropy(logits, rows)
    assert ce_f1(logits, rows, share=1.0) == soft_f1(logits, rows)


def test_ce_f1_still_learns_from_an_image_that_is_surely_wrong_where_soft_f1_cannot():
    logits, ids = 60.0 * F.one_hot(torch.tensor([0, 0]), 18), torch.tensor([1, 2])
    sizes = {}
    for share in (0.5, 1.0):
        given = logits.clone().requires_grad_()
        ce_f1(given, ids, share=share).backward()
        sizes[share] = given.grad.abs().max().item()
    assert sizes[1.0] < 1e-6 and sizes[0.5] > 0.1
