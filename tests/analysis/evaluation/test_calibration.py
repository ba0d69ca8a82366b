import numpy as np
import pytest
from pydantic import TypeAdapter

from analysis.evaluation.calibration import (
    Calibration,
    as_logits,
    bias_correction,
    calibration_error,
    fit_calibration,
    group_pulls,
    log_loss,
    tempered,
)
from tests.conftest import nightly_after
from trainables.data.targets import Classes, Scheme, Task

SCHEME = Scheme((Classes("colour", ("red", "green", "blue")), Classes("shape", ("round", "square"))))
APART = Task(SCHEME, (("colour",), ("shape",)))
TOGETHER = Task(SCHEME, (("colour", "shape"),))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(task, seed, sureness, images=2000):
    """Joint answers whose logits are so many times what they should be, one number a head, and labels drawn from what they should be."""
    rng = np.random.default_rng(seed)
    heads, labels = [], np.zeros((images, len(task.scheme.targets)), dtype=int)
    for part, times in zip(task.head_schemes, sureness, strict=True):
        logits = rng.normal(scale=2, size=(images, part.classes))
        true = (softmax(logits).cumsum(axis=1) < rng.random((images, 1))).sum(axis=1)
        labels[:, task.scheme.columns(part.names)] = part.split(true)
        heads.append(softmax(times * logits))
    return task.answer(heads), labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(0).normal(scale=3, size=(50, 4))
    np.testing.assert_allclose(tempered(softmax(logits), temperature), softmax(logits / temperature))


@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_an_impossible_class_stays_impossible_and_a_hardly_possible_one_breaks_nothing(temperature):
    rows = tempered(np.array([[1.0, 0.0, 0.0], [1 - 1e-300, 1e-300, 0.0], [1e-200, 1e-200, 0.0]]), temperature)
    assert (rows[:, 2] == 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1)


@pytest.mark.parametrize("task", [APART, TOGETHER])
def test_temperatures_of_one_change_nothing(task):
    joint, _ = drawn(task, 0, [1.0] * len(task.heads))
    np.testing.assert_allclose(Calibration(SCHEME, task.heads, (1.0,) * len(task.heads))(joint), joint)


def test_each_head_gets_its_own_temperature():
    joint, _ = drawn(APART, 1, [1.0, 1.0], images=20)
    changed = Calibration(SCHEME, APART.heads, (2.0, 0.5))(joint)
    for image in range(20):
        colour = joint[image].reshape(3, 2).sum(axis=1) ** (1 / 2)
        shape = joint[image].reshape(3, 2).sum(axis=0) ** (1 / 0.5)
        np.testing.assert_allclose(changed[image], np.outer(colour / colour.sum(), shape / shape.sum()).ravel())


@pytest.mark.parametrize("task, sureness", [(APART, [3.0, 0.5]), (APART, [1.0, 1.5]), (TOGETHER, [2.0])])
@pytest.mark.parametrize("seed", range(5))
def test_the_fit_finds_by_how_much_each_head_is_too_sure(task, sureness, seed):
    found = fit_calibration(task, *drawn(task, seed, sureness))
    np.testing.assert_allclose(found.temperatures, sureness, rtol=0.12)


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_a_fit_never_raises_the_log_loss_and_no_other_temperature_has_a_lower_one(seed):
    rng = np.random.default_rng(seed)
    joint, labels = drawn(TOGETHER, seed, [rng.uniform(0.3, 4)], images=int(rng.integers(1, 60)))
    target = SCHEME.joint(labels)
    reached = log_loss(fit_calibration(TOGETHER, joint, labels)(joint), target)
    tried = [log_loss(tempered(joint, temperature), target) for temperature in [1.0, *np.geomspace(0.05, 20, 100)]]
    assert reached <= min(tried) + 1e-4


def test_the_most_probable_class_of_each_head_stays_the_most_probable():
    joint, labels = drawn(APART, 3, [3.0, 0.4])
    changed = fit_calibration(APART, joint, labels)(joint)
    for name in SCHEME.names:
        before, after = SCHEME.marginal((name,), joint), SCHEME.marginal((name,), changed)
        assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def slow_calibration_error(probabilities, target, bins):
    error = 0.0
    for number in range(bins):
        inside = [
            (row.max(), row.argmax() == true)
            for row, true in zip(probabilities, target, strict=True)
            if number / bins < row.max() <= (number + 1) / bins
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            error += abs(confidence - right) * len(inside) / len(target)
    return error


@pytest.mark.parametrize("bins", [1, 15])
@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_that_of_a_slow_reference(seed, bins):
    joint, labels = drawn(TOGETHER, seed, [2.0], images=300)
    found = calibration_error(joint, SCHEME.joint(labels), bins)
    assert found.expected == pytest.approx(slow_calibration_error(joint, SCHEME.joint(labels), bins))
    assert sum(one.photos for one in found.bins) == 300
    assert all(one.low < one.confidence <= one.high for one in found.bins)


def test_calibration_lowers_the_calibration_error_of_a_head_that_is_too_sure():
    joint, labels = drawn(TOGETHER, 0, [3.0])
    calibrated = fit_calibration(TOGETHER, joint, labels)(joint)
    before, after = (calibration_error(rows, SCHEME.joint(labels)).expected for rows in (joint, calibrated))
    assert before > 0.1
    assert after < 0.04


def test_certainty_lies_in_the_last_bin():
    found = calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert found.expected == 0.5
    assert [(one.high, one.photos) for one in found.bins] == [(1.0, 2)]


def test_a_probability_on_a_border_lies_in_the_lower_bin():
    found = calibration_error(np.array([[0.5, 0.5], [0.6, 0.4]]), np.array([0, 0]), bins=2)
    assert [(one.high, one.confidence) for one in found.bins] == [(0.5, 0.5), (1.0, 0.6)]


def test_a_calibration_is_the_same_after_it_was_written_and_read():
    adapter = TypeAdapter(Calibration)
    fitted = fit_calibration(APART, *drawn(APART, 0, [2.0, 0.7]))
    assert adapter.validate_json(adapter.dump_json(fitted, by_alias=True)) == fitted


# Bias correction


def promise(seed, images=600):
    """Probabilities of three classes by a model that learned from as many images of each, and true classes of other shares."""
    rng = np.random.default_rng(seed)
    target = rng.choice(3, size=images, p=[0.7, 0.25, 0.05])
    logits = 3.0 * (rng.normal(size=(images, 3)) + 1.2 * np.eye(3)[target])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, target


@pytest.mark.parametrize("seed", range(5))
def test_corrected_probabilities_have_the_true_shares_on_average_and_a_lower_log_loss(seed):
    probabilities, target = promise(seed)
    corrected = bias_correction(as_logits(probabilities), target)(as_logits(probabilities))
    np.testing.assert_allclose(corrected.mean(axis=0), np.bincount(target) / len(target), atol=2e-3)
    temperatures = np.exp(np.linspace(-3, 3, 61))
    assert log_loss(corrected, target) < min(log_loss(tempered(probabilities, one), target) for one in temperatures) - 0.01
    np.testing.assert_allclose(corrected.sum(axis=1), 1)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_temperature_and_numbers_nearby_have_a_lower_loss(seed):
    probabilities, target = promise(seed)
    corrected = bias_correction(as_logits(probabilities), target)(as_logits(probabilities))
    for change in np.random.default_rng(seed).normal(scale=0.05, size=(50, 4)):
        powers = corrected ** np.exp(change[0]) * np.exp(change[1:])
        assert log_loss(powers / powers.sum(axis=1, keepdims=True), target) > log_loss(corrected, target) - 1e-4


def test_what_a_group_pulls_is_what_a_fit_without_it_loses():
    probabilities, target = promise(0)
    logits, group = as_logits(probabilities), np.arange(len(target)) // 10
    fitted = bias_correction(logits, target)
    pulls = group_pulls(fitted, logits, target, group)
    moved = [bias_correction(logits[group != one], target[group != one]).numbers - fitted.numbers for one in range(12)]
    np.testing.assert_allclose(-pulls[:12], moved, atol=0.1 * np.abs(moved).max())


def test_a_class_that_no_image_shows_and_sure_mistakes_leave_everything_finite():
    sure, target = as_logits(np.eye(3)[[0, 0, 1, 1]]), np.array([0, 1, 1, 1])
    fitted = bias_correction(sure, target)
    assert np.isfinite(group_pulls(fitted, sure, target, np.array([0, 0, 1, 1]))).all()
    assert (fitted(sure)[:, 2] < 0.1).all()
