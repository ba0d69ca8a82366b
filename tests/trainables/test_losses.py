import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainables.config import ConfigError, LossConfig, Watched
from trainables.losses import LOSSES, build_loss

CLASSES = 18
SETTINGS = {"cross_entropy": {"name", "smoothing"}, "focal": {"name", "gamma"}, "soft_f1": {"name"}}


def batch(seed, photos=12):
    """Logits (n, classes), class ids (n,) and mixed rows (n, classes)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(photos, CLASSES, generator=generator)
    ids = torch.randint(CLASSES, (photos,), generator=generator)
    rows = torch.lerp(F.one_hot(ids, CLASSES).float(), F.one_hot(ids.flip(0), CLASSES).float(), 0.3)
    return logits, ids, rows


def softmax(logits):
    powers = np.exp(logits.double().numpy())
    return powers / powers.sum(axis=1, keepdims=True)


def slow_cross_entropy(p, rows, config):
    rows = (1 - config.smoothing) * rows + config.smoothing / CLASSES
    return np.mean([-sum(t * np.log(q) for t, q in zip(*pair, strict=True)) for pair in zip(rows, p, strict=True)])


def slow_focal(p, rows, config):
    return np.mean(
        [-sum(t * (1 - q) ** config.gamma * np.log(q) for t, q in zip(*pair, strict=True)) for pair in zip(rows, p, strict=True)]
    )


def slow_soft_f1(p, rows, config):
    present = [c for c in range(CLASSES) if rows[:, c].any()]
    return 1 - np.mean([2 * sum(rows[:, c] * p[:, c]) / (sum(rows[:, c]) + sum(p[:, c])) for c in present])


REFERENCES = {"cross_entropy": slow_cross_entropy, "focal": slow_focal, "soft_f1": slow_soft_f1}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(5))
def test_every_loss_equals_a_slow_reference_on_mixed_rows(name, seed):
    config = LossConfig(name=name, smoothing=0.1 * seed, gamma=0.7 * seed)
    logits, _, rows = batch(seed)
    expected = REFERENCES[name](softmax(logits), rows.double().numpy(), config)
    assert build_loss(config)(logits, rows).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(5))
def test_every_loss_treats_a_class_id_and_its_one_hot_row_alike(name, seed):
    loss = build_loss(LossConfig(name=name, smoothing=0.1))
    logits, ids, _ = batch(seed)
    assert loss(logits, ids).item() == loss(logits, F.one_hot(ids, CLASSES).float()).item()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_near_0_where_every_photo_is_right_and_larger_where_every_photo_is_wrong(name):
    loss = build_loss(LossConfig(name=name))
    _, ids, _ = batch(0)
    right = loss(30.0 * F.one_hot(ids, CLASSES), ids).item()
    wrong = loss(30.0 * F.one_hot((ids + 1) % CLASSES, CLASSES), ids).item()
    assert 0 <= right < 1e-6
    assert wrong > 0.1


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1.0, 4e3])
@pytest.mark.parametrize("kind", ["ids", "rows"])
def test_every_loss_is_a_finite_float32_with_a_finite_gradient_for_any_dtype_and_size_of_the_logits(name, dtype, size, kind):
    logits, ids, rows = batch(1)
    logits = (size * logits).to(dtype).requires_grad_()
    value = build_loss(LossConfig(name=name, gamma=0.5))(logits, ids if kind == "ids" else rows.to(dtype))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(5))
def test_a_small_step_against_the_gradient_lowers_every_loss(name, seed):
    loss = build_loss(LossConfig(name=name))
    logits, _, rows = batch(seed)
    logits.requires_grad_()
    value = loss(logits, rows)
    value.backward()
    assert (logits.grad.abs().sum(dim=1) > 0).all()
    assert loss(logits - 0.1 * logits.grad, rows) < value


@pytest.mark.parametrize("seed", range(5))
def test_focal_with_gamma_0_is_cross_entropy(seed):
    logits, ids, rows = batch(seed)
    focal, cross_entropy = build_loss(LossConfig(name="focal", gamma=0.0)), build_loss(LossConfig(name="cross_entropy"))
    torch.testing.assert_close(focal(logits, rows), cross_entropy(logits, rows))
    torch.testing.assert_close(focal(logits, ids), F.cross_entropy(logits, ids))


def test_focal_turns_its_attention_to_photos_that_are_not_right_yet():
    logits, ids = torch.tensor([[4.0, 0.0], [0.0, 0.0]], requires_grad=True), torch.tensor([0, 0])
    ratio = {}
    for gamma in (0.0, 2.0):
        (gradient,) = torch.autograd.grad(build_loss(LossConfig(name="focal", gamma=gamma))(logits, ids), logits)
        ratio[gamma] = (gradient[0].norm() / gradient[1].norm()).item()
    assert ratio[2.0] < 0.1 * ratio[0.0]


@pytest.mark.parametrize("seed", range(5))
def test_soft_f1_does_not_see_how_probability_lies_among_classes_absent_from_the_batch(seed):
    logits, _, _ = batch(seed)
    ids = torch.arange(12) % 6
    shuffled = torch.cat([logits[:, :6], logits[:, 6:].flip(1)], dim=1)
    loss = build_loss(LossConfig(name="soft_f1"))
    torch.testing.assert_close(loss(logits, ids), loss(shuffled, ids))


def test_soft_f1_counts_a_rare_class_as_much_as_a_frequent_one():
    ids = torch.tensor([0] * 9 + [1])
    everything_is_0 = 30.0 * F.one_hot(torch.zeros(10, dtype=torch.int64), CLASSES)
    f1_of_0 = 2 * 9 / (9 + 10)
    assert build_loss(LossConfig(name="soft_f1"))(everything_is_0, ids).item() == pytest.approx(1 - f1_of_0 / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_reads_its_own_settings_and_no_others(name):
    read = set()
    build_loss(Watched(LossConfig(name=name), read))
    assert read == SETTINGS[name]


def test_an_unknown_loss_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="loss/name: 'focl' does not exist; did you mean focal.*cross_entropy, focal, soft_f1"):
        build_loss(LossConfig(name="focl"))
