from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainables.losses.classification import cross_entropy
from trainables.losses.margin import arcface, cosface, ldam, ldam_margins

SCALE = 30.0
MARGINS = [0.0, 0.1, 0.3, 0.5, 1.0, 1.5]


def with_margin(loss, margin):
    if loss is ldam:
        return partial(ldam, scale=SCALE, margins=torch.full((18,), margin))
    return partial(loss, scale=SCALE, margin=margin)


@pytest.fixture(params=[arcface, cosface, ldam], ids=lambda loss: loss.__name__)
def loss(request):
    return partial(with_margin, request.param)


@pytest.fixture
def cosines():
    """Scaled cosines (n, 18) over the whole circle, and class ids (n,)."""
    generator = torch.Generator().manual_seed(0)
    cosines = torch.empty(200, 18).uniform_(-1, 1, generator=generator)
    return SCALE * cosines, torch.randint(18, (200,), generator=generator)


def per_image(loss, logits, target):
    return torch.stack([loss(logits[[image]], target[[image]]) for image in range(len(logits))])


def test_without_a_margin_it_is_cross_entropy_of_the_logits(loss, batch):
    for seed in range(5):
        logits, ids, rows = batch(seed)
        for target in (ids, rows):
            torch.testing.assert_close(loss(0.0)(logits, target), cross_entropy(logits, target))


def test_a_greater_margin_is_a_greater_loss_of_every_image_wherever_its_angle(loss, cosines):
    values = [per_image(loss(margin), *cosines) for margin in MARGINS]
    for smaller, greater in zip(values, values[1:], strict=False):
        assert (greater >= smaller - 1e-5).all()
        assert greater.mean() > smaller.mean() + 0.1


def test_the_nearer_an_image_is_to_its_class_the_lower_the_loss_over_the_whole_half_circle(loss):
    cosine = torch.cos(torch.linspace(torch.pi, 0, 500))
    logits = torch.zeros(len(cosine), 18)
    logits[:, 4] = SCALE * cosine
    for margin in MARGINS:
        values = per_image(loss(margin), logits, torch.full((len(cosine),), 4))
        assert (values.diff() <= 1e-5).all() and values[-1] < values[0] - 20


@pytest.mark.parametrize("target_cosine", [-1.0, 1.0])
@pytest.mark.parametrize("margin", MARGINS)
def test_the_gradient_is_finite_and_draws_an_image_to_its_class_at_cosines_of_minus_1_and_1(loss, margin, target_cosine):
    logits = torch.full((1, 18), SCALE)  # all others as near as can be, so that there is something to learn
    logits[0, 4] = SCALE * target_cosine
    logits.requires_grad_()
    loss(margin)(logits, torch.tensor([4])).backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 4] < 0


def test_the_gradient_of_arcface_is_finite_all_the_way_to_the_ends():
    for steps in range(200):
        cosine = torch.tensor(1.0)
        for _ in range(steps):
            cosine = torch.nextafter(cosine, torch.tensor(0.0))
        logits = torch.full((1, 18), SCALE)
        logits[0, 4] = SCALE * cosine
        logits.requires_grad_()
        arcface(logits, torch.tensor([4]), scale=SCALE, margin=0.5).backward()
        assert logits.grad.isfinite().all() and logits.grad.abs().max() < 1000


def test_the_logits_stay_as_they_are_so_that_the_answer_has_no_margin(loss, cosines):
    logits, ids = cosines
    before = logits.clone()
    loss(0.5)(logits, ids)
    assert torch.equal(logits, before)


def test_arcface_turns_the_angle_to_the_true_class_and_no_other():
    angles = torch.tensor([[0.4, 1.2, 2.0]])
    found = arcface(SCALE * angles.cos(), torch.tensor([1]), scale=SCALE, margin=0.3)
    expected = F.cross_entropy(SCALE * torch.tensor([[0.4, 1.5, 2.0]]).cos(), torch.tensor([1]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("loss", "cosine"), [(arcface, np.cos(np.pi / 2 - 0.3)), (cosface, 0.3), (ldam, 0.3)])
def test_an_image_that_keeps_just_the_margin_is_where_one_on_the_border_is_without_a_margin(loss, cosine):
    logits = torch.zeros(1, 18)
    logits[0, 4] = SCALE * cosine
    assert with_margin(loss, 0.3)(logits, torch.tensor([4])).item() == pytest.approx(np.log(18), abs=1e-4)


def test_a_mixed_image_gives_each_class_the_part_of_the_margin_that_is_its_share():
    logits, rows = SCALE * torch.tensor([[0.5, 0.4, -0.2]]), torch.tensor([[0.75, 0.25, 0.0]])
    expected = F.cross_entropy(SCALE * torch.tensor([[0.5 - 0.75 * 0.2, 0.4 - 0.25 * 0.2, -0.2]]), rows)
    torch.testing.assert_close(cosface(logits, rows, scale=SCALE, margin=0.2), expected)
    turned = 0.75 * np.cos(np.arccos(0.5) + 0.2) + 0.25 * 0.5, 0.25 * np.cos(np.arccos(0.4) + 0.2) + 0.75 * 0.4, -0.2
    expected = F.cross_entropy(SCALE * torch.tensor([turned], dtype=torch.float32), rows)
    torch.testing.assert_close(arcface(logits, rows, scale=SCALE, margin=0.2), expected)


def test_the_margins_of_ldam_fall_with_the_fourth_root_of_the_images_from_that_of_the_rarest_class():
    assert ldam_margins(np.array([16.0, 256.0, 1.0, 81.0]), 0.6).tolist() == pytest.approx([0.3, 0.15, 0.6, 0.2])
    assert ldam_margins(np.array([1600.0, 100.0, 8100.0]), 0.5).tolist() == pytest.approx([0.25, 0.5, 0.5 / 3])


def test_a_class_without_a_training_image_has_the_margin_of_the_rarest_that_has_some():
    assert ldam_margins(np.array([0.0, 16.0, 256.0]), 0.6).tolist() == pytest.approx([0.6, 0.6, 0.3])


def test_ldam_asks_more_of_a_rare_class_than_of_a_frequent_one():
    margins = ldam_margins(np.array([1000.0, 10.0]), 0.5)
    logits = torch.zeros(2, 2)
    frequent, rare = per_image(partial(ldam, scale=SCALE, margins=margins), logits, torch.tensor([0, 1]))
    assert rare > frequent + 1
