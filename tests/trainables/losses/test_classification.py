import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import nightly_after
from trainables.losses.classification import bce, class_weights, cosine_ce, cross_entropy, focal, symmetric_ce

COUNTS = np.array([500.0, 20.0, 1.0, 0.0])


def weights(counts=COUNTS, *, alpha, beta=0.999):
    return class_weights(alpha, beta, counts)


def test_without_alpha_there_are_no_weights():
    assert weights(alpha="none") is None


def test_inverse_weights_give_every_class_with_images_the_same_say():
    found = weights(alpha="inverse").double().numpy()
    assert found[:3] * COUNTS[:3] == pytest.approx([521 / 3] * 3)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.999999])
def test_effective_weights_are_to_each_other_as_the_formula_of_the_paper_says(beta):
    found = weights(alpha="effective", beta=beta)
    effective_numbers = [sum(beta**k for k in range(int(n))) for n in COUNTS[:3]]
    assert (found[:3] / found[0]).tolist() == pytest.approx([effective_numbers[0] / n for n in effective_numbers], rel=1e-5)


def test_effective_weights_go_from_none_to_inverse_ones_as_beta_grows():
    torch.testing.assert_close(weights(alpha="effective", beta=0.0), torch.ones(4))
    torch.testing.assert_close(weights(alpha="effective", beta=1 - 1e-9), weights(alpha="inverse"), rtol=1e-4, atol=0)


def test_listed_weights_keep_their_ratios():
    found = weights(alpha=(1.0, 2.0, 3.0, 4.0))
    assert (found / found[0]).tolist() == pytest.approx([1, 2, 3, 4])


@pytest.mark.parametrize("alpha", ["inverse", "effective", (1.0, 2.0, 3.0, 4.0)])
@pytest.mark.parametrize("counts", [COUNTS, np.array([3.5, 0.25, 9.0, 70.0])])
def test_the_mean_weight_over_the_training_images_is_1(alpha, counts):
    assert np.average(weights(counts, alpha=alpha), weights=counts) == pytest.approx(1)


@pytest.mark.parametrize("alpha", ["inverse", "effective"])
def test_a_class_without_a_training_image_is_weighted_as_if_it_had_one(alpha):
    found = weights(alpha=alpha)
    assert found[3] == found[2] and found.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_weighted_cross_entropy_is_torchs_without_the_division_by_the_batchs_weights(batch, smoothing, seed):
    logits, ids, rows = batch(seed)
    alpha = torch.rand(18, generator=torch.Generator().manual_seed(seed))
    for target in (ids, rows):
        expected = F.cross_entropy(logits, target, alpha, label_smoothing=smoothing, reduction="none").mean()
        torch.testing.assert_close(cross_entropy(logits, target, smoothing=smoothing, weights=alpha), expected)


@pytest.mark.parametrize("alpha", [None, torch.arange(1.0, 19.0)])
@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_focal_with_gamma_0_is_cross_entropy(batch, alpha, seed):
    logits, ids, rows = batch(seed)
    for target in (ids, rows):
        torch.testing.assert_close(focal(logits, target, gamma=0.0, weights=alpha), cross_entropy(logits, target, weights=alpha))


def test_focal_turns_its_attention_to_images_that_are_not_right_yet():
    logits, ids = torch.tensor([[4.0, 0.0], [0.0, 0.0]], requires_grad=True), torch.tensor([0, 0])
    ratio = {}
    for gamma in (0.0, 2.0):
        (gradient,) = torch.autograd.grad(focal(logits, ids, gamma=gamma), logits)
        ratio[gamma] = (gradient[0].norm() / gradient[1].norm()).item()
    assert ratio[2.0] < 0.1 * ratio[0.0]


def test_bce_is_smallest_where_the_sigmoids_are_the_target_row(batch):
    _, _, rows = batch(0)
    best = bce(torch.logit(rows, eps=1e-6), rows)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert bce(torch.logit(rows, eps=1e-6) + torch.randn(rows.shape, generator=generator), rows) > best


def test_the_pull_of_a_wrong_label_has_a_bound_in_the_reversed_part_of_symmetric_ce_alone():
    ids = torch.tensor([1])
    wrong = {sure: torch.tensor([[float(sure), 0.0]]) for sure in (30, 60)}
    ce = {sure: cross_entropy(logits, ids) for sure, logits in wrong.items()}
    reversed_part = {sure: (symmetric_ce(logits, ids, reverse=2.0) - ce[sure]) / 2 for sure, logits in wrong.items()}
    assert ce[60] - ce[30] == pytest.approx(30)
    assert reversed_part[30].item() == pytest.approx(-np.log(1e-4)) and reversed_part[60].item() == pytest.approx(-np.log(1e-4))


@pytest.mark.parametrize("seed", range(5))
def test_symmetric_ce_adds_a_multiple_of_the_mean_absolute_error_for_ids(batch, seed):
    logits, ids, _ = batch(seed)
    missing = (1 - logits.softmax(dim=1).gather(1, ids[:, None])).mean()
    expected = F.cross_entropy(logits, ids) - 0.5 * np.log(1e-4) * missing
    torch.testing.assert_close(symmetric_ce(logits, ids, reverse=0.5), expected)


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_cosine_ce_is_torchs_cosine_embedding_loss_plus_torchs_cross_entropy_of_unit_logits(batch, seed):
    logits, ids, rows = batch(seed)
    for target, shares in ((ids, F.one_hot(ids, 18).float()), (rows, rows)):
        embedding = F.cosine_embedding_loss(logits, shares, torch.ones(len(logits)))
        expected = embedding + 0.1 * F.cross_entropy(F.normalize(logits), target)
        torch.testing.assert_close(cosine_ce(logits, target, cosine=0.1), expected)


@pytest.mark.parametrize("length", [1e-3, 7.0, 1e3])
def test_cosine_ce_does_not_see_how_long_the_logits_are(batch, length):
    logits, _, rows = batch(0)
    torch.testing.assert_close(cosine_ce(length * logits, rows, cosine=0.1), cosine_ce(logits, rows, cosine=0.1))
