"""What holds for every loss: those of the registry, and the one of ordinal heads."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import nightly_after
from trainables.config import section
from trainables.losses import LOSSES, CosineHeadSettings, Head
from trainables.losses.ordinal import coral

CLASSES = 18
COUNTS = np.array([2745, 2050, 415, 3660, 4085, 545, 549, 410, 83, 732, 817, 109, 549, 410, 83, 732, 817, 109], float)
ALL = [*(name for name, entry in LOSSES.items() if "classes" in entry.kinds), "coral"]
OF_THE_BATCH = {"soft_f1", "ce_f1"}  # the others are means over images


def build(name, **settings):
    """The loss, with those of the settings that it has."""
    if name == "coral":
        return coral
    own = {field: value for field, value in settings.items() if field in LOSSES[name].settings.model_fields}
    return LOSSES[name].build(section("loss", name=name, **own), Head("classes", COUNTS, int(COUNTS.sum())))


def softmax(logits):
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def slow_ce(logits, row):
    return -sum(t * math.log(p) for t, p in zip(row, softmax(logits), strict=True))


def slow_margin(logits, row, config, margined):
    """`margined(cosine, class)` is what a class has in place of its cosine when it is the true one."""
    cosines = [value / config.scale for value in logits]
    blended = [t * margined(value, c) + (1 - t) * value for c, (t, value) in enumerate(zip(row, cosines, strict=True))]
    return slow_ce([config.scale * value for value in blended], row)


def slow_weights(config):
    weights = [(1 - config.beta) / (1 - config.beta**n) for n in COUNTS]
    mean = sum(n * w for n, w in zip(COUNTS, weights, strict=True)) / sum(COUNTS)
    return [w / mean for w in weights]


def slow_cross_entropy(logits, row, config):
    row = [(1 - config.smoothing) * t + config.smoothing / CLASSES for t in row]
    return -sum(w * t * math.log(p) for w, t, p in zip(slow_weights(config), row, softmax(logits), strict=True))


def slow_focal(logits, row, config):
    terms = zip(slow_weights(config), row, softmax(logits), strict=True)
    return -sum(w * t * (1 - p) ** config.gamma * math.log(p) for w, t, p in terms)


def slow_bce(logits, row, config):
    sigmoids = [1 / (1 + math.exp(-value)) for value in logits]
    return -sum(t * math.log(s) + (1 - t) * math.log(1 - s) for t, s in zip(row, sigmoids, strict=True)) / CLASSES


def slow_symmetric_ce(logits, row, config):
    reverse = -sum(p * math.log(max(t, 1e-4)) for t, p in zip(row, softmax(logits), strict=True))
    return slow_ce(logits, row) + config.reverse * reverse


def slow_cosine_ce(logits, row, config):
    unit = [value / math.hypot(*logits) for value in logits]
    cosine = sum(t * value for t, value in zip(row, unit, strict=True)) / math.hypot(*row)
    return 1 - cosine + config.cosine * slow_ce(unit, row)


def slow_arcface(logits, row, config):
    def margined(cosine, _):
        angle = math.acos(cosine)
        beyond = angle + config.margin > math.pi
        return cosine - config.margin * math.sin(config.margin) if beyond else math.cos(angle + config.margin)

    return slow_margin(logits, row, config, margined)


def slow_cosface(logits, row, config):
    return slow_margin(logits, row, config, lambda cosine, _: cosine - config.margin)


def slow_ldam(logits, row, config):
    largest = min(COUNTS) ** -0.25
    return slow_margin(logits, row, config, lambda cosine, c: cosine - config.margin * COUNTS[c] ** -0.25 / largest)


def slow_coral(logits, row, config):
    p, total = softmax(logits), 0.0
    for cut in range(1, CLASSES):
        beyond = sum(row[cut:])
        total -= beyond * math.log(sum(p[cut:])) + (1 - beyond) * math.log(sum(p[:cut]))
    return total


def slow_soft_f1(logits, rows):
    p = [softmax(row) for row in logits]
    scores = []
    for c in range(CLASSES):
        true, predicted = sum(row[c] for row in rows), sum(q[c] for q in p)
        if true:
            scores.append(2 * sum(row[c] * q[c] for row, q in zip(rows, p, strict=True)) / (true + predicted))
    return 1 - sum(scores) / len(scores)


PER_IMAGE = {
    "cross_entropy": slow_cross_entropy,
    "focal": slow_focal,
    "bce": slow_bce,
    "symmetric_ce": slow_symmetric_ce,
    "cosine_ce": slow_cosine_ce,
    "arcface": slow_arcface,
    "cosface": slow_cosface,
    "ldam": slow_ldam,
    "coral": slow_coral,
}


def slow(name, logits, rows, config):
    pairs = list(zip(logits.double().tolist(), rows.double().tolist(), strict=True))
    if name in PER_IMAGE:
        return sum(PER_IMAGE[name](*pair, config) for pair in pairs) / len(pairs)
    share = 1.0 if name == "soft_f1" else config.share
    return (1 - share) * sum(slow_ce(*pair) for pair in pairs) / len(pairs) + share * slow_soft_f1(*zip(*pairs, strict=True))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["ids", "rows"])
@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_every_loss_equals_a_slow_reference(batch, name, kind, seed):
    logits, ids, rows = batch(seed)
    settings = {"smoothing": 0.05 * seed, "gamma": 0.5 * seed, "share": 0.1 * seed, "cosine": 0.1 + seed, "reverse": 0.5 + seed}
    settings |= {"alpha": "effective", "beta": 0.99, "scale": 10.0, "margin": 0.15 * seed}
    target = {"ids": ids, "rows": rows}[kind]
    expected = slow(name, logits, {"ids": F.one_hot(ids, CLASSES), "rows": rows}[kind], SimpleNamespace(**settings))
    assert build(name, **settings)(logits, target).item() == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_every_loss_treats_a_class_id_and_its_one_hot_row_alike(batch, name, seed):
    loss = build(name, smoothing=0.1, alpha="inverse")
    logits, ids, _ = batch(seed)
    assert loss(logits, ids).item() == loss(logits, F.one_hot(ids, CLASSES).float()).item()


@pytest.mark.parametrize("name", sorted({*ALL} - OF_THE_BATCH))
@pytest.mark.parametrize("kind", ["ids", "rows"])
def test_a_loss_that_is_a_mean_over_images_is_the_mean_of_what_each_image_has_alone(batch, name, kind):
    logits, ids, rows = batch(3)
    loss, target = build(name, alpha="inverse"), {"ids": ids, "rows": rows}[kind]
    alone = torch.stack([loss(logits[[image]], target[[image]]) for image in range(len(logits))])
    torch.testing.assert_close(loss(logits, target), alone.mean())


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "bce", "coral"])
@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_these_losses_of_a_mixed_image_are_those_of_its_parts_by_their_shares(batch, name, seed):
    loss = build(name, alpha="inverse", smoothing=0.1)
    logits, ids, rows = batch(seed)
    torch.testing.assert_close(loss(logits, rows), 0.7 * loss(logits, ids) + 0.3 * loss(logits, ids.flip(0)))


def surely(ids, name):
    """Logits that are sure of the classes; where each class has a sigmoid, also that it is no other."""
    one_hot = F.one_hot(ids, CLASSES)
    return 30.0 * one_hot - (30.0 * (1 - one_hot) if name == "bce" else 0)


@pytest.mark.parametrize("name", ALL)
def test_no_other_answer_has_a_lower_loss_than_being_surely_right(batch, name):
    loss = build(name)
    _, ids, _ = batch(0)
    right = loss(surely(ids, name), ids).item()
    assert right == pytest.approx(0.1 * math.log(1 + 17 / math.e) if name == "cosine_ce" else 0, abs=1e-5)
    for step in range(1, CLASSES):
        assert loss(surely((ids + step) % CLASSES, name), ids).item() > right + 0.1
    for seed in range(20):
        assert loss(batch(seed)[0], ids).item() > right + 0.1
    assert loss(torch.ones(len(ids), CLASSES), ids).item() > right + 0.1


@pytest.mark.parametrize("name", ALL)
def test_descending_from_an_answer_that_is_surely_right_gains_next_to_nothing(batch, name):
    loss = build(name)
    _, ids, _ = batch(0)
    logits = surely(ids, name).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    right = loss(logits, ids).item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(logits, ids).backward()
        optimizer.step()
    assert right - loss(logits, ids).item() < 0.005


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("kind", ["ids", "rows"])
def test_every_loss_is_a_finite_float32_with_a_finite_gradient_for_any_dtype_and_size_of_the_logits(batch, name, dtype, size, kind):
    logits, ids, rows = batch(1)
    logits = (size * logits).to(dtype).requires_grad_()
    value = build(name, gamma=0.5)(logits, ids if kind == "ids" else rows.to(dtype))
    value.backward()
    assert value.dtype == torch.float32 and value.ndim == 0
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["ids", "rows"])
@pytest.mark.parametrize("autocast", [False, True])
def test_every_loss_computes_half_precision_logits_as_if_they_were_float32(batch, name, kind, autocast):
    logits, ids, rows = batch(2)
    target = {"ids": ids, "rows": rows}[kind]
    half = logits.half()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = build(name)(half, target)
    assert value.item() == build(name)(half.float(), target).item()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["ids", "rows"])
@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_the_gradient_reaches_every_logit_and_a_small_step_against_it_lowers_the_loss(batch, name, kind, seed):
    loss = build(name)
    logits, ids, rows = batch(seed)
    logits, target = logits / 4, {"ids": ids, "rows": rows}[kind]
    logits.requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert (logits.grad != 0).all()
    assert loss(logits - 0.1 * logits.grad, target) < value


def test_the_losses_of_cosines_are_those_whose_answer_depends_on_the_scale(batch):
    logits, ids, _ = batch(0)
    differ = {name for name in ALL if build(name, scale=10.0)(logits, ids) != build(name, scale=20.0)(logits, ids)}
    assert differ == {name for name, entry in LOSSES.items() if issubclass(entry.settings, CosineHeadSettings)}


@pytest.mark.parametrize("name", ALL)
def test_every_loss_is_computed_where_the_logits_are(batch, name):
    logits, _, rows = (values.to("meta") for values in batch(0))
    assert build(name, alpha="inverse")(logits, rows).device.type == "meta"
