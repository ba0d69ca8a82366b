import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from tests.messages import missing
from tuner.fidelity import Fidelity, highest, line, measure, unrestricted, warning
from tuner.settings import RunSettings
from tuner.stoppers.asha import halving_rungs


def slow_spearman(first, second):
    """By the definition: Pearson's correlation of mean ranks, each counted out by hand."""

    def ranks(values):
        return [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values]

    def deviations(values):
        return [value - sum(values) / len(values) for value in values]

    x, y = deviations(ranks(first)), deviations(ranks(second))
    return sum(a * b for a, b in zip(x, y, strict=True)) / (sum(a * a for a in x) * sum(b * b for b in y)) ** 0.5


def curves_of(early, final):
    """Trials of two epochs."""
    return dict(enumerate(zip(early, final, strict=True)))


def of_one_backbone(curves):
    return dict.fromkeys(curves, "resnet18")


def correlation(early, final):
    curves = curves_of(early, final)
    (fidelity,) = measure(curves, of_one_backbone(curves), [1])
    assert fidelity == Fidelity(1, None, len(curves), fidelity.correlation)
    return fidelity.correlation


def random_curves(seed):
    """Trials of unequal length whose scores settle with the epochs, and now and then tie."""
    rng = np.random.default_rng(seed)
    trials, epochs, noise = rng.integers(8, 30), 10, rng.uniform(0.2, 3)
    talent = rng.normal(size=(trials, 1))
    scores = np.round(talent + noise * rng.normal(size=(trials, epochs)) / np.arange(1, epochs + 1), 1)
    lengths = np.where(rng.random(trials) < 0.2, rng.integers(1, epochs + 1, size=trials), epochs)
    curves = {number: scores[number, :length].tolist() for number, length in enumerate(lengths)}
    return curves, {number: str(rng.choice(["resnet18", "resnet34"])) for number in curves}


@pytest.mark.parametrize("seed", range(50))
def test_the_correlation_is_spearmans_with_ties_at_their_mean_rank(seed):
    rng = np.random.default_rng(seed)
    # One decimal: most samples have ties.
    early, final = rng.random((2, rng.integers(4, 15))).round(1).tolist()
    assert correlation(early, final) == pytest.approx(slow_spearman(early, final))


def test_equal_order_is_1_opposite_order_is_minus_1_and_a_known_case_with_ties_is_as_computed_by_hand():
    assert correlation([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]) == pytest.approx(1)
    assert correlation([0.1, 0.2, 0.3, 0.4], [0.8, 0.7, 0.6, 0.5]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert correlation([0.1, 0.2, 0.2, 0.4], [0.5, 0.6, 0.7, 0.8]) == pytest.approx(0.9**0.5)


@pytest.mark.parametrize("seed", range(30))
def test_only_the_order_of_scores_matters(seed):
    early, final = np.random.default_rng(seed).random((2, 12)).round(1)
    before = correlation(early, final)
    assert correlation(early**3, np.exp(5 * final)) == pytest.approx(before)
    assert correlation(-early, final) == pytest.approx(-before)
    assert correlation(final, early) == pytest.approx(before)


def test_a_trial_that_ended_at_the_rung_or_before_is_left_out_of_that_rung():
    curves = {0: [0.1, 0.2, 0.3], 1: [0.2, 0.3, 0.4], 2: [0.3, 0.4, 0.5], 3: [0.9, 0.0], 4: [0.9]}
    first, second = measure(curves, of_one_backbone(curves), [1, 2])
    assert (first.epoch, first.trials) == (1, 4)
    assert first.correlation == pytest.approx(slow_spearman([0.1, 0.2, 0.3, 0.9], [0.3, 0.4, 0.5, 0.0]))
    assert (second.epoch, second.trials) == (2, 3)
    assert second.correlation == pytest.approx(1)


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_there_is_no_correlation_of_fewer_than_three_trials(trials):
    curves = curves_of([0.1, 0.2][:trials], [0.3, 0.4][:trials])
    assert measure(curves, of_one_backbone(curves), [1]) == [Fidelity(1, None, trials, None)]


def test_there_is_no_correlation_when_all_scores_are_equal():
    assert correlation([0.1, 0.1, 0.1], [0.1, 0.2, 0.3]) is None
    assert correlation([0.1, 0.2, 0.3], [0.5, 0.5, 0.5]) is None


def test_there_is_nothing_to_measure_without_rungs():
    curves = curves_of([0.1] * 9, [0.2] * 9)
    assert measure(curves, of_one_backbone(curves), []) == []
    assert warning(curves, of_one_backbone(curves), []) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_backbone_is_measured_over_its_own_trials_only(seed):
    curves, backbones = random_curves(seed)
    found = measure(curves, backbones, iter([3, 1, 3]))
    assert [(fidelity.epoch, fidelity.backbone) for fidelity in found] == [
        (epoch, backbone) for epoch in (1, 3) for backbone in (None, "resnet18", "resnet34")
    ]
    for fidelity in found:
        own = {number: curve for number, curve in curves.items() if fidelity.backbone in (None, backbones[number])}
        (alone,) = measure(own, of_one_backbone(own), [fidelity.epoch])
        assert (fidelity.trials, fidelity.correlation) == (alone.trials, alone.correlation)


def test_the_only_backbone_is_not_measured_twice_though_others_were_stopped():
    curves = curves_of([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert len(measure(curves, {0: "resnet18", 1: "resnet18", 2: "resnet18", 3: "resnet34"}, [1])) == 1


def halved(seed, trials=60, talent=0.8):
    """The trials that pass a rung at epoch 1 or are spared, those that are stopped there, and all."""
    rng = np.random.default_rng(seed)
    final = rng.standard_normal(trials)
    early = talent * final + (1 - talent**2) ** 0.5 * rng.standard_normal(trials)
    runs = (early >= np.quantile(early, 2 / 3)) | (rng.random(trials) < 0.05)
    every = curves_of(early.tolist(), final.tolist())
    return {n: every[n] for n in every if runs[n]}, {n: every[n][:1] for n in every if not runs[n]}, every


def test_that_trials_which_pass_a_rung_are_alike_there_is_corrected_for():
    errors, uncorrected = [], []
    for seed in range(40):
        curves, stopped, every = halved(seed)
        (found,), (among,), (true,) = (
            measure(one, of_one_backbone(every), [1], two) for one, two in ((curves, stopped), (curves, {}), (every, {}))
        )
        assert found.restriction > 1 == among.restriction
        errors.append(found.correlation - true.correlation)
        uncorrected.append(among.correlation - true.correlation)
    assert np.mean(uncorrected) < -0.12
    assert abs(np.mean(errors)) < 0.08
    assert np.std(errors) < np.std(uncorrected) + 0.03


@pytest.mark.parametrize("correlation", [-1.0, -0.4, 0.0, 0.6, 1.0])
def test_a_correction_for_no_restriction_changes_nothing_and_one_can_be_taken_back(correlation):
    assert unrestricted(correlation, 1.0) == pytest.approx(correlation)
    assert unrestricted(unrestricted(correlation, 1.7), 1 / 1.7) == pytest.approx(correlation)


def test_stopped_trials_are_counted_for_their_own_backbone_and_from_the_rungs_that_they_reached():
    curves, backbones = random_curves(1)
    stopped = {100: [0.0], 101: [0.1, 0.2, 0.3]}
    backbones |= {100: "resnet18", 101: "resnet34"}
    one, three = (measure(curves, backbones, [epoch], stopped) for epoch in (1, 3))
    assert all(found.restriction != 1 for found in one)
    assert [found.restriction != 1 for found in three] == [True, False, True]


def test_the_measured_can_be_written_as_json():
    curves, backbones = random_curves(0)
    found = measure(curves, backbones, [1, 9])
    assert [Fidelity(**values) for values in json.loads(json.dumps([asdict(fidelity) for fidelity in found]))] == found


UP = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
DOWN = UP[::-1]
MIXED = [0.5, 0.3, 0.7, 0.1, 0.8, 0.2, 0.6, 0.4]  # correlates with UP at 0.02


def curves_through(*epochs):
    """A trial for each place of the given lists of scores, one list an epoch."""
    return dict(enumerate(zip(*epochs, strict=True)))


def test_a_misleading_rung_is_named_with_the_grace_that_avoids_it():
    curves = curves_through(DOWN, MIXED, UP, UP, UP)
    assert not missing(warning(curves, of_one_backbone(curves), [1]), "-1.00 at epoch 1 over 8 trials", "--set run/grace=3", "0.5")


def test_where_no_epoch_before_the_last_predicts_it_better_the_advice_is_not_to_stop_early():
    curves = curves_through(DOWN, DOWN, MIXED, UP)
    words = warning(curves, of_one_backbone(curves), [1, 2])
    assert not missing(words, "-1.00 at epoch 1 over 8 trials", "-1.00 at epoch 2 over 8 trials", "--no-early-stopping")


def test_an_epoch_with_equal_scores_is_no_advice():
    curves = curves_through(DOWN, [0.5] * 8, UP)
    assert "--no-early-stopping" in warning(curves, of_one_backbone(curves), [1])


def test_the_advised_epoch_lies_beyond_every_rung_that_misleads():
    # Epoch 2 predicts the end, but a grace of 2 would leave a rung at epoch 4.
    curves = curves_through(DOWN, UP, UP, DOWN, UP, UP)
    assert "--set run/grace=5," in warning(curves, of_one_backbone(curves), [1, 2, 4])


def test_rungs_that_predict_the_end_and_too_few_trials_are_no_reason_for_a_warning():
    curves = curves_through(UP, MIXED, UP)
    assert warning(curves, of_one_backbone(curves), [1]) is None
    seven = curves_through(DOWN[:7], UP[:7])
    assert warning(seven, of_one_backbone(seven), [1]) is None
    eight = curves_through(DOWN, UP)
    assert warning(eight, of_one_backbone(eight), [1]) is not None


def test_a_backbone_can_be_misled_where_all_trials_together_are_not():
    # The first is worse from start to end; within the second, early scores turn round.
    curves = curves_through(UP + [1 + score for score in DOWN], UP + [1 + score for score in UP], UP + [1 + score for score in UP])
    backbones = {number: "resnet10t" if number < 8 else "resnet34" for number in curves}
    words = warning(curves, backbones, [1])
    assert "-1.00 at epoch 1 over 8 trials of resnet34" in words and "resnet10t" not in words
    assert "--set run/grace=2," in words


def test_all_trials_together_can_be_misled_where_no_backbone_is():
    # Within each the order is right from the start, but the one that starts low ends high.
    curves = curves_through(UP + [1 + score for score in UP], [2 + score for score in UP] + UP, [2 + score for score in UP] + UP)
    backbones = {number: "resnet10t" if number < 8 else "resnet34" for number in curves}
    words = warning(curves, backbones, [1])
    assert re.search(r"-0\.\d\d at epoch 1 over 16 trials", words) and "resnet" not in words
    assert "--set run/grace=2," in words
    assert [fidelity.correlation for fidelity in measure(curves, backbones, [1])][1:] == pytest.approx([1, 1])


def test_a_backbone_with_fewer_than_eight_trials_of_its_own_is_not_evaluated():
    curves = curves_through(UP + [1 + score for score in DOWN[:7]], UP + [1 + score for score in UP[:7]])
    backbones = {number: "resnet10t" if number < 8 else "resnet34" for number in curves}
    assert measure(curves, backbones, [1])[-1] == Fidelity(1, "resnet34", 7, pytest.approx(-1))
    assert warning(curves, backbones, [1]) is None


@pytest.mark.parametrize("seed", range(60))
def test_the_advice_is_the_earliest_epoch_that_avoids_all_that_misled(seed):
    curves, backbones = random_curves(seed)
    rungs = halving_rungs(1, 3, 10)

    def surely_below(value, backbone, epoch):
        trials = sum(backbone in (None, backbones[number]) and len(curve) > epoch for number, curve in curves.items())
        return highest(value, trials) < 0.3

    def evaluated(epoch):
        """Backbone, or None for all -> correlation at an epoch, where 8 trials or more go beyond it."""
        found = {}
        for backbone in (None, "resnet18", "resnet34"):
            own = [curve for number, curve in curves.items() if backbone in (None, backbones[number]) and len(curve) > epoch]
            if len(own) >= 8:
                found[backbone] = slow_spearman([curve[epoch - 1] for curve in own], [curve[-1] for curve in own])
        return found

    misled = [(epoch, backbone) for epoch in rungs for backbone, value in evaluated(epoch).items() if surely_below(value, backbone, epoch)]
    words = warning(curves, backbones, rungs)
    if not misled:
        assert words is None
        return
    last = max(epoch for epoch, _ in misled)
    fixing = [epoch for epoch in range(last + 1, 10) if all(evaluated(epoch).get(backbone, -1) >= 0.5 for _, backbone in misled)]
    assert re.findall(r"run/grace=(\d+)|(--no-early-stopping)", words) == [(str(fixing[0]), "") if fixing else ("", "--no-early-stopping")]
    assert words.count(" at epoch ") == len(misled)
    if fixing:
        settings = RunSettings(grace=fixing[0], epochs=10)
        left = set(halving_rungs(settings.grace, 3, 10))
        assert not left & {epoch for epoch, _ in misled}


def test_the_seeds_above_see_every_kind_of_advice():
    words = [str(warning(*random_curves(seed), [1, 3, 9])) for seed in range(60)]
    for kind in ("None", "run/grace", "--no-early-stopping", "of resnet34"):
        assert sum(kind in text for text in words) >= 2, kind


@pytest.mark.parametrize("noise, fewest, most", [(1.6, 0, 8), (0.9, 0, 4), (50.0, 25, 100)])
def test_warnings_are_rare_where_early_scores_predict_and_not_where_they_are_noise(noise, fewest, most):
    """Of 100 searches of 60 trials that are thinned to a third twice, of which one in twenty may not be stopped."""
    warned = plain = 0
    for rng in map(np.random.default_rng, range(100)):
        talent = rng.normal(size=60)
        early, later, final = (talent + spread * rng.normal(size=60) for spread in (noise, 0.6 * noise, 0.1))
        spared = rng.random(60) < 0.05
        alive = spared | (early >= np.sort(early)[-20])
        ended = np.flatnonzero(spared | (alive & (later >= np.sort(later[alive])[-(alive.sum() // 3)])))
        curves = curves_through(early[ended], later[ended], final[ended])
        warned += warning(curves, of_one_backbone(curves), [1]) is not None
        plain += len(ended) >= 8 and correlation(early[ended], final[ended]) < 0.3
    assert fewest <= warned <= most
    assert warned < plain or plain == 0


def test_the_line_shows_all_trials_rung_by_rung():
    found = [Fidelity(1, None, 9, 0.451), Fidelity(1, "resnet18", 5, -1.0), Fidelity(3, None, 9, 0.82)]
    assert line(found).endswith("epoch 1: 0.45, epoch 3: 0.82 (9 trials)")


def test_the_line_says_between_which_numbers_the_trials_lie_and_shows_no_negative_zero():
    found = [Fidelity(1, None, 9, -0.001), Fidelity(3, None, 7, -0.5), Fidelity(9, None, 2, None)]
    assert line(found).endswith("epoch 1: 0.00, epoch 3: -0.50 (7 to 9 trials)")


def test_there_is_no_line_before_anything_is_measured():
    assert line([]) is None
    assert line([Fidelity(1, None, 2, None), Fidelity(1, "resnet18", 4, 0.5)]) is None
