"""Losses of tags and of numbers against slow ones, and which loss trains a head of which kind."""

import math

import numpy as np
import pytest
import torch

from trainables.config import section
from trainables.data.targets import Classes, Number, Scheme, Tags, read_task
from trainables.losses import DEFAULTS, LOSSES, Head, build_losses, loss_of
from trainables.losses.tags import tag_weights

COUNTS, IMAGES = np.array([40.0, 10.0, 1.0]), 100
OF_TAGS = [name for name, entry in LOSSES.items() if "tags" in entry.kinds]
OF_NUMBERS = [name for name, entry in LOSSES.items() if "number" in entry.kinds]
MIXED = Scheme((Classes("sex", ("f", "m")), Tags("scene", ("sea", "sun", "snow")), Number("age")))


def slow_binary(p, target, gamma_with=0.0, gamma_without=0.0, weight=1.0):
    return -(weight * target * (1 - p) ** gamma_with * math.log(p) + (1 - target) * p**gamma_without * math.log(1 - p))


def slow(name, config, logit, target, tag):
    p = 1 / (1 + math.exp(-logit))
    weight = {"none": 1.0, "inverse": (IMAGES - COUNTS[tag]) / COUNTS[tag]}[getattr(config, "alpha", "none")]
    if name == "asymmetric":
        shifted = max(p - config.shift, 0)
        without = -(shifted**config.negative) * math.log(1 - shifted)
        return target * slow_binary(p, 1, config.positive) + (1 - target) * without
    if name == "focal":
        return slow_binary(p, target, config.gamma, config.gamma, weight)
    smoothing = getattr(config, "smoothing", 0.0)
    return slow_binary(p, target * (1 - smoothing) + smoothing / 2, weight=weight)


@pytest.mark.parametrize("name", OF_TAGS)
@pytest.mark.parametrize("alpha", ["none", "inverse"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_loss_of_tags_equals_a_slow_one(name, alpha, soft):
    rng = np.random.default_rng(0)
    given = {"smoothing": 0.2, "alpha": alpha}
    config = section("loss", name=name, **{one: value for one, value in given.items() if one in LOSSES[name].settings.model_fields})
    logits = rng.normal(size=(5, 3))
    target = rng.random((5, 3)) if soft else rng.integers(0, 2, size=(5, 3)).astype(float)
    loss = LOSSES[name].build(config, Head("tags", COUNTS, IMAGES))(torch.tensor(logits), torch.tensor(target))
    expected = np.mean([slow(name, config, logits[i, tag], target[i, tag], tag) for i in range(5) for tag in range(3)])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OF_TAGS)
@pytest.mark.parametrize("size", [0.0, 30.0, 1000.0])
def test_a_loss_of_tags_and_its_gradient_are_finite_for_every_logit(name, size):
    logits = torch.tensor([[-size, 0.0, size]], requires_grad=True)
    for target in (torch.zeros(1, 3), torch.ones(1, 3)):
        loss = LOSSES[name].build(section("loss", name=name), Head("tags", COUNTS, IMAGES))(logits, target)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


def test_tags_are_weighted_by_how_rare_they_are_and_alike_where_every_second_image_has_them():
    for alpha in ("inverse", "effective"):
        weights = tag_weights(alpha, 0.99, np.array([50.0, 10.0, 0.0]), 100).tolist()
        assert weights[0] == pytest.approx(1) and weights[0] < weights[1] < weights[2] < math.inf
    assert tag_weights((1.0, 2.0, 3.0), 0.99, COUNTS, 100).tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_a_loss_of_numbers_is_the_distance_in_standard_deviations(name):
    loss = LOSSES[name].build(section("loss", name=name), Head("number", np.array([2.0]), 2, std=10.0))
    far, near = float(loss(torch.tensor([[50.0]]), torch.tensor([[30.0]]))), float(loss(torch.tensor([[35.0]]), torch.tensor([[30.0]])))
    assert (far, near) == pytest.approx({"smooth_l1": (1.5, 0.125), "l1": (2.0, 0.5), "l2": (4.0, 0.25)}[name])


@pytest.mark.parametrize("name", LOSSES)
def test_a_head_of_a_kind_that_a_loss_is_not_for_is_trained_by_the_default_of_its_kind(name):
    schemes = read_task("joint", MIXED).head_schemes
    for scheme in schemes:
        own = loss_of(section("loss", name=name), scheme.kind)
        assert own.name == (name if scheme.kind in LOSSES[name].kinds else DEFAULTS[scheme.kind])
    heads = [Head(scheme.kind, np.full(scheme.classes, 5.0), 20, 3.0) for scheme in schemes]
    assert len(build_losses(section("loss", name=name), schemes, heads)) == 3
