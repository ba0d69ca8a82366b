import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from tests.conftest import nightly_after
from trainables.config import section
from trainables.schedules import SCHEDULES, build_schedule

PEAK, PER_EPOCH, EPOCHS = 0.2, 10, 12
TOTAL = PER_EPOCH * EPOCHS
CLIMBERS = ["cyclic", "one_cycle"]  # which climb by themselves
OTHERS = [name for name in SCHEDULES if name not in CLIMBERS]


def build(name, **settings):
    """The schedule, with those of the settings that it has."""
    return build_schedule(section("schedule", name=name, **own(name, settings)), PEAK, PER_EPOCH, EPOCHS)


def own(name, settings):
    return {field: value for field, value in settings.items() if name not in SCHEDULES or field in SCHEDULES[name].settings.model_fields}


def rates_of(schedule, steps=TOTAL):
    return np.array([schedule.lr(step) for step in range(steps)])


def torchs(make, steps, lr=PEAK):
    """The learning rates of torch's own scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings(action="ignore"):  # that some of them are called with an epoch, by torch itself
            scheduler.step()
    return np.array(rates)


def peaks(schedule, scores):
    """The learning rate after each epoch, the warm-up being over."""
    rates = []
    for score in scores:
        schedule.end_epoch(score)
        rates.append(schedule.lr(TOTAL - 1))
    return rates


# All of them


@pytest.mark.parametrize("name", OTHERS)
def test_every_schedule_starts_at_its_peak_without_warm_up(name):
    assert build(name).lr(0) == PEAK


@pytest.mark.parametrize("name", [*OTHERS, "cyclic"])
def test_every_schedule_climbs_in_equal_steps_from_above_0_to_its_peak(name):
    schedule = build(name, warmup=0.25, cycles=1)
    rates = [schedule.lr(step) for step in range(31)]
    np.testing.assert_allclose(np.diff([0.0, *rates]), PEAK / 31)
    assert rates[-1] == PEAK


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.5, 0.99, 0.9999999])
@pytest.mark.parametrize("epochs", [1, 2, 7])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_every_learning_rate_lies_above_0_and_at_most_at_the_peak_which_is_reached(name, warmup, epochs, floor):
    settings = section("schedule", name=name, **own(name, dict(warmup=warmup, every=100, milestones=(0.999,), floor=floor)))
    rates = rates_of(build_schedule(settings, PEAK, 1, epochs), epochs)
    assert rates.min() > 0
    assert rates.max() == PEAK


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("seed", nightly_after(2, range(20)))
def test_whatever_the_settings_learning_rates_stay_between_0_and_the_peak(name, seed):
    rng = np.random.default_rng(seed)
    drawn = {
        "warmup": float(rng.choice([0.0, rng.uniform()])),
        "floor": float(rng.uniform(0, 0.99)),
        "every": int(rng.integers(1, 4)),
        "milestones": tuple(np.sort(rng.uniform(0.01, 0.99, 3)).tolist()),
        "factor": float(rng.uniform(0.1, 0.9)),
        "power": float(rng.uniform(0.2, 4)),
        "cycles": int(rng.integers(1, 30)),
        "decay": float(rng.uniform(0.1, 1)),
    }
    config = section("schedule", name=name, **own(name, drawn))
    epochs, per_epoch = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    rates = rates_of(build_schedule(config, PEAK, per_epoch, epochs), epochs * per_epoch)
    assert rates.min() > 0 and rates.max() <= PEAK
    if hasattr(config, "floor") and not config.warmup:
        assert rates.min() >= config.floor * PEAK


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_trial_of_one_step_trains_at_the_peak(name):
    for settings in ({}, {"warmup": 0.5}, {"cycles": 9}):
        assert build_schedule(section("schedule", name=name, **own(name, settings)), PEAK, 1, 1).lr(0) == PEAK


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "plateau"])
def test_scores_change_no_schedule_but_plateau(name):
    schedule = build(name, patience=0)
    before = rates_of(schedule).tolist()
    for score in (0.9, 0.1, 0.1, 0.1):
        schedule.end_epoch(score)
    assert rates_of(schedule).tolist() == before
    assert schedule.state() == {}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_a_schedule_that_resumes_from_its_state_equals_one_that_never_stopped(name, seed):
    scores = np.random.default_rng(seed).uniform(size=EPOCHS).tolist()
    whole, first, second = (build(name, patience=1, warmup=0.1) for _ in range(3))
    expected = peaks(whole, scores)
    before = peaks(first, scores[:5])
    second.load_state(json.loads(json.dumps(first.state())))
    assert before + peaks(second, scores[5:]) == expected


# Drops


def test_constant_ends_at_its_peak():
    assert build("constant", warmup=0.1).lr(TOTAL - 1) == PEAK


@pytest.mark.parametrize(("every", "factor"), [(1, 0.5), (5, 0.1), (20, 0.3)])
def test_step_multiplies_by_factor_every_so_many_epochs(every, factor):
    expected = torchs(lambda optimizer: lr_scheduler.StepLR(optimizer, every * PER_EPOCH, factor), TOTAL)
    np.testing.assert_allclose(rates_of(build("step", every=every, factor=factor)), expected)


@pytest.mark.parametrize("milestones", [(0.5,), (0.5, 0.75), (0.25, 0.5, 0.9)])
def test_multi_step_multiplies_by_factor_after_each_of_the_shares_of_the_trial(milestones):
    steps = [round(share * TOTAL) for share in milestones]
    expected = torchs(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, steps, 0.3), TOTAL)
    np.testing.assert_allclose(rates_of(build("multi_step", milestones=milestones, factor=0.3)), expected)


def test_warm_up_does_not_move_the_drops():
    for name in ("step", "multi_step"):
        np.testing.assert_array_equal(rates_of(build(name, warmup=0.1))[12:], rates_of(build(name))[12:])


def test_exponential_falls_by_factor_an_epoch_a_little_with_every_step():
    expected = torchs(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.6), EPOCHS)
    rates = rates_of(build("exponential", factor=0.6))
    np.testing.assert_allclose(rates[::PER_EPOCH], expected)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 0.6 ** (1 / PER_EPOCH))
    # After a warm-up it begins at the peak.
    np.testing.assert_allclose(rates_of(build("exponential", factor=0.6, warmup=0.25))[30:], rates[:90])


# Curves


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_poly_falls_as_a_power_of_what_is_left(power):
    expected = torchs(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, TOTAL, power), TOTAL)
    np.testing.assert_allclose(rates_of(build("poly", power=power)), expected)


def test_poly_of_power_1_is_a_straight_line_to_the_floor():
    expected = torchs(lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.2, TOTAL), TOTAL)
    np.testing.assert_allclose(rates_of(build("poly", floor=0.2)), expected)


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.5])
def test_cosine_falls_to_its_floor_after_the_last_step(floor):
    expected = torchs(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, TOTAL, floor * PEAK), TOTAL + 1)
    np.testing.assert_allclose(rates_of(build("cosine", floor=floor), TOTAL + 1), expected, atol=1e-15)


def test_cosine_falls_from_its_peak_through_half_to_0_after_the_last_step():
    schedule = build("cosine", warmup=0.25)
    rates = [schedule.lr(step) for step in range(30, TOTAL + 1)]
    assert rates[0] == PEAK
    assert rates[45] == pytest.approx(PEAK / 2)
    assert rates[-2] > rates[-1] == 0
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize("cycles", [1, 2, 3, 8])
def test_restarts_run_through_the_cosine_so_many_times(cycles):
    expected = torchs(lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, TOTAL // cycles, eta_min=0.1 * PEAK), TOTAL)
    np.testing.assert_allclose(rates_of(build("restarts", cycles=cycles, floor=0.1)), expected)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_restarts_come_back_to_peaks_that_decay(warmup):
    rates = rates_of(build("restarts", cycles=3, decay=0.5, warmup=warmup))[round(warmup * TOTAL) :]
    third = len(rates) // 3
    for number, cycle in enumerate(np.split(rates, 3)):
        fall = (1 + np.cos(np.pi * np.arange(third) / third)) / 2
        np.testing.assert_allclose(cycle, PEAK * 0.5**number * fall)


@pytest.mark.parametrize("name", ["restarts", "cyclic"])
def test_no_peak_decays_below_the_floor(name):
    rates = rates_of(build(name, cycles=10, decay=0.1, floor=0.5))
    np.testing.assert_allclose(rates[12:], PEAK / 2)
    assert rates[:12].max() == PEAK and len(set(rates[:12])) > 6


def triangle(length, up, floor):
    """Smith's cycle from torch, which begins and ends at the floor; without these two steps."""
    cycle = torchs(lambda optimizer: lr_scheduler.CyclicLR(optimizer, floor * PEAK, PEAK, up, length + 1 - up), length + 2)
    assert cycle[0] == pytest.approx(floor * PEAK) and cycle[-1] == pytest.approx(floor * PEAK)
    return cycle[1:-1]


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("cycles", [1, 2, 6])
def test_cyclic_climbs_and_falls_in_straight_lines_between_floor_and_peak(cycles, floor):
    length = TOTAL // cycles
    expected = np.tile(triangle(length, length // 2 + 1, floor), cycles)
    np.testing.assert_allclose(rates_of(build("cyclic", cycles=cycles, floor=floor)), expected)


def test_of_cyclic_warm_up_is_the_share_of_each_cycle_that_climbs():
    expected = np.tile(triangle(60, 12 + 1, 0.0), 2)
    np.testing.assert_allclose(rates_of(build("cyclic", cycles=2, warmup=0.2)), expected)


def test_peaks_of_cyclic_decay():
    rates = rates_of(build("cyclic", cycles=3, decay=0.5))
    np.testing.assert_allclose([cycle.max() for cycle in np.split(rates, 3)], [PEAK, PEAK / 2, PEAK / 4])
    assert [int(cycle.argmax()) for cycle in np.split(rates, 3)] == [20, 20, 20]


@pytest.mark.parametrize(("warmup", "climb"), [(0.0, 0.3), (0.1, 0.1), (0.7, 0.7)])
@pytest.mark.parametrize("floor", [0.01, 0.2])
def test_one_cycle_climbs_and_falls_by_cosine_as_torch_does(warmup, climb, floor):
    # torch's begins and ends at the floor; those two steps are left out.
    up = round(climb * TOTAL) + 1

    def make(optimizer):
        share = (up + 1) / (TOTAL + 2)
        return lr_scheduler.OneCycleLR(optimizer, PEAK, TOTAL + 2, pct_start=share, div_factor=1 / floor, final_div_factor=1)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK, momentum=0.9)
    scheduler, expected = make(optimizer), []
    for step in range(TOTAL + 2):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step <= TOTAL:
            scheduler.step()
    assert expected[0] == pytest.approx(floor * PEAK) and expected[-1] == pytest.approx(floor * PEAK)
    np.testing.assert_allclose(rates_of(build("one_cycle", warmup=warmup, floor=floor)), expected[1:-1])


@pytest.mark.parametrize("name", ["restarts", "cyclic"])
@pytest.mark.parametrize(("steps", "cycles"), [(10, 3), (7, 7), (5, 50), (121, 4)])
def test_steps_that_are_no_multiple_of_the_cycles_still_bring_every_cycle_to_its_peak(name, steps, cycles):
    rates = rates_of(build_schedule(section("schedule", name=name, cycles=cycles, decay=0.5), PEAK, 1, steps), steps)
    reached = [rate for rate in rates if any(math.isclose(rate, PEAK * 0.5**number) for number in range(cycles))]
    assert [PEAK * 0.5**number in rates for number in range(min(cycles, steps))] == [True] * min(cycles, steps)
    assert len(reached) >= min(cycles, steps) and rates.min() > 0


# Plateau


def test_plateau_keeps_its_peak_while_scores_rise():
    assert peaks(build("plateau", patience=0), np.linspace(0.1, 0.9, 10)) == [PEAK] * 10


def test_plateau_drops_while_scores_fall():
    rates = peaks(build("plateau", patience=0, factor=0.5), [0.9, 0.8, 0.7])
    assert rates == [PEAK, PEAK / 2, PEAK / 4]


def test_plateau_waits_for_more_than_patience_epochs_and_starts_counting_again():
    rates = peaks(build("plateau", patience=2, factor=0.5), [0.5, 0.5, 0.4, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6])
    assert rates == [PEAK] * 3 + [PEAK / 2] * 6 + [PEAK / 4]


def test_plateau_takes_a_score_that_is_not_a_number_for_no_better():
    assert peaks(build("plateau", patience=0, factor=0.5), [0.5, float("nan"), 0.6]) == [PEAK, PEAK / 2, PEAK / 2]


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_drops_where_torchs_does_for_scores_that_are_better_when_higher(patience, seed):
    # Few different scores, so that ties occur.
    scores = np.random.default_rng(seed).integers(0, 12, size=30) / 12
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=patience, threshold=0.0, eps=0.0)
    expected = []
    for score in scores:
        theirs.step(score)
        expected.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(peaks(build("plateau", patience=patience, factor=0.5), scores), expected)
    assert expected[-1] < PEAK
