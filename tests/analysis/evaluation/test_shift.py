from dataclasses import replace
from functools import cache
from math import erf, sqrt

import numpy as np
import pytest
from pydantic import TypeAdapter

from analysis.evaluation.calibration import as_logits, bias_correction
from analysis.evaluation.shift import Shift, correction, estimate, estimate_all, reweighted_gain
from benchmarks.shift import SHIFTED as MORE_RARE
from benchmarks.shift import by_bbse, by_em, figures, world
from tests.conftest import nightly_after
from trainables.data.targets import Classes, Scheme
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
SHAPE = Scheme((Classes("shape", ("round", "square")),))
BOTH = Scheme((Classes("colour", ("red", "green", "blue")), Classes("shape", ("round", "square"))))
IMAGES = 7  # a group
LEARNED, SHIFTED = np.array([0.4, 0.6]), np.array([0.6, 0.4])


def groups_of(shares, groups, rng):
    """The value of each image, and its group; all images of a group have the same value."""
    own = rng.choice(len(shares), size=groups, p=shares)
    return np.repeat(own, IMAGES), np.repeat(np.arange(groups), IMAGES)


def answers(target, rng, apart=1.88):
    """Probabilities of two values, calibrated under the learned shares.

    1.88 standard deviations from the middle leave a normal variable on the wrong side 3 times of 100.
    """
    seen = rng.normal(np.where(target == 1, apart, -apart))
    odds = LEARNED[1] / LEARNED[0] * np.exp(2 * apart * seen)
    return np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)


def situation(seed, shares, groups=300, evaluation_groups=300):
    rng = np.random.default_rng(seed)
    target, group = groups_of(LEARNED, groups, rng)
    hidden, _ = groups_of(shares, evaluation_groups, rng)
    return answers(target, rng), target, group, answers(hidden, rng), hidden


@cache
def after_a_shift(seed):
    """The estimate, the answers of the images that shifted, and their true values."""
    *known, evaluation, hidden = situation(seed, SHIFTED)
    return estimated(seed, *known, evaluation), evaluation, hidden


def estimated(seed, valid, target, group, evaluation, trained=LEARNED, draws=100):
    return estimate("shape", valid, target, group, trained, evaluation, np.random.default_rng(seed), draws)


@pytest.mark.parametrize("method", ["bbse", "em"])
def test_shares_of_40_and_60_that_became_60_and_40_are_estimated_within_two_points(method):
    assert (1 - erf(1.88 / sqrt(2))) / 2 == pytest.approx(0.03, abs=0.001)
    errors = []
    for seed in range(30):
        shift, _, hidden = after_a_shift(seed)
        errors.append(np.abs(getattr(shift, method) - np.bincount(hidden) / len(hidden)).max())
    assert max(errors) < 0.02


def test_what_a_model_promises_too_much_of_rare_values_does_not_mislead_the_estimates():
    rare, errors = np.array([0.1, 0.9]), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        (target, group), (hidden, _) = groups_of(rare, 300, rng), groups_of(rare, 300, rng)
        promised = [answers(one, rng, apart=1.0) for one in (target, hidden)]  # as if four of ten had the rare value
        shift = estimate("shape", promised[0], target, group, rare, promised[1], rng, draws=2)
        errors.append(np.abs(shift.em - np.bincount(hidden) / len(hidden)).max())
        assert np.abs(slow_em(promised[1][::7], rare, rounds=50) - rare).max() > 0.3, "without calibration it is far off"
    assert np.mean(errors) < 0.03


def test_a_real_shift_is_significant_and_its_intervals_hold_the_true_shares():
    significant, held = [], []
    for seed in range(30):
        shift, _, _ = after_a_shift(seed)
        significant.append(shift.significant)
        held.append(all(low <= share <= high for share, (low, high) in zip(SHIFTED, shift.em_intervals, strict=True)))
    assert all(significant)
    assert sum(held) >= 26


@pytest.mark.parametrize("sharpness", nightly_after(1, [2.0, 1.2]))
def test_where_a_rare_value_grows_em_is_nearer_to_the_truth_than_bbse_with_shorter_intervals_that_hold(sharpness):
    worlds = [world(seed, MORE_RARE, sharpness=sharpness) for seed in range(12)]
    em, bbse = (figures([by(one, np.random.default_rng(0), 100) for one in worlds], MORE_RARE) for by in (by_em, by_bbse))
    assert em["rmse"] < bbse["rmse"] and em["width"] < 0.85 * bbse["width"]
    assert em["coverage"] > 0.85
    assert em["found"] >= (0.75 if sharpness == 2.0 else 0.2) > bbse["found"]


def test_correcting_a_real_shift_does_not_lower_the_macro_f1_of_the_images_that_shifted():
    gains = []
    for seed in range(30):
        shift, evaluation, hidden = after_a_shift(seed)
        corrected = correction(SHAPE, [shift])(evaluation)
        before, after = (METRIC.score(hidden, answer) for answer in (evaluation, corrected))
        gains.append(after - before)
    assert np.mean(gains) > 0
    assert np.mean(gains) > 2 * np.std(gains) / sqrt(len(gains))


@pytest.mark.parametrize("groups, evaluation_groups", nightly_after(1, [(60, 40), (200, 200), (40, 200)]))
def test_without_a_shift_one_is_found_in_few_of_25_seeds_and_then_nothing_is_changed(groups, evaluation_groups):
    significant = 0
    for seed in range(25):
        *known, evaluation, _ = situation(seed, LEARNED, groups, evaluation_groups)
        shift = estimated(seed, *known, evaluation)
        significant += shift.significant
        if not shift.significant:
            assert correction(SHAPE, [shift])(evaluation) is evaluation
    assert significant <= 3


def test_images_of_one_group_count_as_one_even_where_the_groups_are_not_given():
    """Twenty groups shift by accident; one hundred and forty images of as many groups do not."""
    *known, evaluation, _ = situation(1, np.array([0.55, 0.45]), 300, 20)
    alone = np.arange(len(known[1]))
    few, many = estimated(0, *known, evaluation), estimated(0, known[0], known[1], alone, evaluation)
    assert few.em_intervals[0][1] - few.em_intervals[0][0] > 2 * (many.em_intervals[0][1] - many.em_intervals[0][0])
    assert few.p_value > many.p_value


def slow_em(probabilities, trained, rounds=2000):
    shares = list(trained)
    for _ in range(rounds):
        sums = [0.0] * len(shares)
        for row in probabilities:
            joint = [score * share / learned for score, share, learned in zip(row, shares, trained, strict=True)]
            for value, score in enumerate(joint):
                sums[value] += score / sum(joint) / len(probabilities)
        shares = sums
    return shares


@pytest.mark.parametrize("seed", range(3))
def test_the_estimates_are_those_of_slow_references(seed):
    rng = np.random.default_rng(seed)
    trained = np.array([0.5, 0.3, 0.2])
    target = rng.choice(3, size=200, p=trained)
    valid = 0.7 * np.eye(3)[target] + 0.3 * rng.dirichlet(np.ones(3), size=200)
    evaluation = 0.7 * np.eye(3)[rng.choice(3, size=30, p=[0.2, 0.3, 0.5])] + 0.3 * rng.dirichlet(np.ones(3), size=30)
    shift = estimate("colour", valid, target, np.arange(200), trained, evaluation, rng)
    calibrated = bias_correction(as_logits(valid), target)
    np.testing.assert_allclose(shift.em, slow_em(calibrated(as_logits(evaluation)), calibrated(as_logits(valid)).mean(axis=0)), atol=1e-4)

    guessed = [sum(row.argmax() == value for row in evaluation) / 30 for value in range(3)]
    mixed = [
        [np.mean([row.argmax() == got for row, value in zip(valid, target, strict=True) if value == true]) for true in range(3)]
        for got in range(3)
    ]
    solved = np.maximum(np.linalg.solve(mixed, guessed), 0)
    np.testing.assert_allclose(shift.predicted, guessed)
    np.testing.assert_allclose(shift.bbse, solved / solved.sum())


def is_consistent(shift):
    for shares in (shift.predicted, shift.bbse, shift.em):
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1)
    assert all(0 <= low <= high <= 1 for low, high in shift.em_intervals)
    assert 0 < shift.p_value <= 1
    return True


def test_a_classifier_that_always_answers_the_same_shows_no_shift():
    rng = np.random.default_rng(0)
    target, group = groups_of(LEARNED, 50, rng)
    always = np.tile([0.4, 0.6], (len(target), 1))
    shift = estimated(0, always, target, group, always[:70])
    assert is_consistent(shift)
    np.testing.assert_allclose(shift.bbse, LEARNED)
    assert not shift.significant


def test_a_classifier_that_hardly_separates_values_shows_no_shift():
    target = np.repeat([0, 1], [400, 600])
    said = np.eye(2)[np.where(np.arange(1000) % 100 < 52, target, 1 - target)]
    shift = estimated(0, said, target, np.arange(1000), np.eye(2)[np.repeat([0, 1], [60, 40])])
    assert is_consistent(shift)
    np.testing.assert_allclose(shift.bbse, LEARNED, atol=0.08)
    assert not shift.significant


def test_a_value_that_is_never_predicted_keeps_its_trained_share_where_the_others_do_not_shift():
    rng = np.random.default_rng(0)
    trained = np.array([0.5, 0.4, 0.1])
    target = np.repeat([0, 1, 2], [350, 280, 70])
    said = np.where(target == 2, np.arange(700) % 2, target)
    shift = estimate("colour", np.eye(3)[said], target, np.arange(700), trained, np.eye(3)[said], rng)
    assert is_consistent(shift)
    np.testing.assert_allclose(shift.bbse, trained, atol=1e-9)
    assert not shift.significant


def test_a_value_that_no_validation_image_has_counts_as_always_recognised():
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1], 100)
    evaluation = np.eye(3)[np.repeat([0, 1, 2], 50)]
    shift = estimate("colour", np.eye(3)[target], target, np.arange(200) // 4, np.array([0.5, 0.5, 0.0]), evaluation, rng)
    assert is_consistent(shift)
    np.testing.assert_allclose(shift.bbse, 1 / 3)
    answer = correction(Scheme(BOTH.targets[:1]), [shift])(evaluation)
    np.testing.assert_allclose(answer.sum(axis=1), 1)


@pytest.mark.parametrize("value", [0, 1])
def test_one_image_is_no_significant_shift(value):
    *known, _, _ = situation(0, SHIFTED, groups=300)
    shift = estimated(0, *known, np.eye(2)[[value]])
    assert is_consistent(shift)
    assert not shift.significant


def test_many_images_that_all_agree_are_a_significant_shift():
    *known, _, _ = situation(0, SHIFTED)
    shift = estimated(0, *known, np.eye(2)[np.zeros(700, dtype=int)])
    assert is_consistent(shift)
    assert shift.significant


def both(seed, shares, groups=200, apart=1.88):
    """Joint answers of a scheme whose colour is certain and whose shape shifts."""
    rng = np.random.default_rng(seed)
    shape, group = groups_of(shares, groups, rng)
    colour = rng.integers(3, size=len(shape))
    answer = (np.eye(3)[colour][:, :, None] * answers(shape, rng, apart)[:, None, :]).reshape(-1, 6)
    return answer, BOTH.joint(np.stack([colour, shape], axis=1)), group


def test_of_several_attributes_the_one_that_shifted_is_corrected_alone():
    valid, target, group = both(0, LEARNED)
    evaluation, _, _ = both(1, SHIFTED)
    trained = {"colour": np.full(3, 1 / 3), "shape": LEARNED}
    shifts = estimate_all(BOTH, valid, target, group, trained, evaluation, np.random.default_rng(0))
    assert [(shift.attribute, shift.significant) for shift in shifts] == [("colour", False), ("shape", True)]
    shares = correction(BOTH, shifts)
    assert list(shares.factors) == ["shape"]
    np.testing.assert_allclose(shares.factors["shape"], np.array(shifts[1].em) / LEARNED)
    colours = [BOTH.marginal(("colour",), answer) for answer in (evaluation, shares(evaluation))]
    np.testing.assert_allclose(*colours)


def test_each_of_many_targets_without_a_shift_is_less_often_found_to_have_one_than_alone():
    valid, target, group = both(0, LEARNED, groups=60)
    evaluation, _, _ = both(3, np.array([0.5, 0.5]), groups=60)
    trained = {"colour": np.full(3, 1 / 3), "shape": LEARNED}
    together = estimate_all(BOTH, valid, target, group, trained, evaluation, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    alone = [
        estimate(
            name,
            BOTH.marginal((name,), valid),
            BOTH.split(target)[:, column],
            group,
            trained[name],
            BOTH.marginal((name,), evaluation),
            rng,
        )
        for column, name in enumerate(BOTH.names)
    ]
    low, high = sorted(shift.p_value for shift in alone)
    assert sorted(shift.p_value for shift in together) == pytest.approx([2 * low, max(2 * low, high)])


def slow_weighted_f1(predicted, target, weights, classes):
    scores = []
    for one in range(classes):
        hits = sum(w for got, true, w in zip(predicted, target, weights, strict=True) if got == true == one)
        ends = sum(w * (int(got == one) + int(true == one)) for got, true, w in zip(predicted, target, weights, strict=True))
        scores.append(2 * hits / ends if ends else 0.0)
    return np.mean(scores)


def test_the_reweighted_gain_counts_each_image_by_the_factor_of_its_true_value():
    answer, target, group = both(0, LEARNED, groups=40)
    shift = replace(after_a_shift(0)[0], em=(0.8, 0.2))
    shares = correction(BOTH, [shift])
    gain = reweighted_gain(answer, target, group, shares, METRIC, np.random.default_rng(0))
    weights = np.where(target % 2 == 0, 0.8 / 0.4, 0.2 / 0.6)
    assert gain.before == pytest.approx(slow_weighted_f1(answer.argmax(axis=1), target, weights, 6))
    assert gain.after == pytest.approx(slow_weighted_f1(shares(answer).argmax(axis=1), target, weights, 6))
    assert gain.interval[0] <= gain.after - gain.before <= gain.interval[1]


def test_the_reweighted_gain_of_no_correction_is_exactly_nothing():
    answer, target, group = both(0, LEARNED, groups=40)
    gain = reweighted_gain(answer, target, group, correction(BOTH, []), METRIC, np.random.default_rng(0))
    assert (gain.after - gain.before, gain.interval) == (0, (0, 0))


def test_the_reweighted_gain_predicts_the_gain_on_images_that_shifted():
    foretold, found = [], []
    for seed in range(20):
        valid, target, group = both(seed, LEARNED)
        evaluation, hidden, _ = both(1000 + seed, SHIFTED)
        shares = correction(BOTH, [replace(after_a_shift(0)[0], em=(0.6, 0.4))])
        gain = reweighted_gain(valid, target, group, shares, METRIC, np.random.default_rng(seed))
        foretold.append(gain.after - gain.before)
        before, after = (METRIC.score(hidden, answer) for answer in (evaluation, shares(evaluation)))
        found.append(after - before)
    assert np.mean(foretold) == pytest.approx(np.mean(found), abs=0.01)
    assert np.mean(foretold) > 0


def test_the_same_generator_gives_the_same_shift_and_a_shift_is_the_same_after_it_was_written_and_read():
    *known, evaluation, _ = situation(0, SHIFTED, 30, 30)
    shift = estimated(5, *known, evaluation)
    assert estimated(5, *known, evaluation) == shift
    adapter = TypeAdapter(Shift)
    assert adapter.validate_json(adapter.dump_json(shift)) == shift
