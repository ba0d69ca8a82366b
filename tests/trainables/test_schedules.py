import json

import numpy as np
import pytest

from trainables.config import ConfigError, ScheduleConfig, Watched
from trainables.schedules import SCHEDULES, build_schedule

PEAK, PER_EPOCH, EPOCHS = 0.2, 10, 12
TOTAL = PER_EPOCH * EPOCHS
SETTINGS = {
    "constant": {"name", "warmup"},
    "step": {"name", "warmup", "every", "factor"},
    "cosine": {"name", "warmup"},
    "plateau": {"name", "warmup", "factor", "patience"},
}


def build(name, **settings):
    return build_schedule(ScheduleConfig(name=name, **settings), PEAK, PER_EPOCH, EPOCHS)


def peaks(schedule, scores):
    """The learning rate after each epoch, the warm-up being over."""
    rates = []
    for score in scores:
        schedule.end_epoch(score)
        rates.append(schedule.lr(TOTAL - 1))
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_at_its_peak_without_warm_up(name):
    assert build(name).lr(0) == PEAK


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_climbs_in_equal_steps_from_above_0_to_its_peak(name):
    schedule = build(name, warmup=0.25)
    rates = [schedule.lr(step) for step in range(31)]
    np.testing.assert_allclose(np.diff([0.0, *rates]), PEAK / 31)
    assert rates[-1] == PEAK


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.5, 0.99, 0.9999999])
@pytest.mark.parametrize("epochs", [1, 7])
def test_every_learning_rate_lies_above_0_and_at_most_at_the_peak_which_is_reached(name, warmup, epochs):
    schedule = build_schedule(ScheduleConfig(name=name, warmup=warmup, every=100), PEAK, 1, epochs)
    rates = [schedule.lr(step) for step in range(epochs)]
    assert min(rates) > 0
    assert max(rates) == PEAK


def test_constant_ends_at_its_peak():
    assert build("constant", warmup=0.1).lr(TOTAL - 1) == PEAK


def test_step_multiplies_by_factor_every_so_many_epochs():
    schedule = build("step", every=5, factor=0.1)
    expected = [PEAK] * 50 + [PEAK * 0.1] * 50 + [PEAK * 0.01] * 20
    np.testing.assert_allclose([schedule.lr(step) for step in range(TOTAL)], expected)


def test_cosine_falls_from_its_peak_through_half_to_0_after_the_last_step():
    schedule = build("cosine", warmup=0.25)
    rates = [schedule.lr(step) for step in range(30, TOTAL + 1)]
    assert rates[0] == PEAK
    assert rates[45] == pytest.approx(PEAK / 2)
    assert rates[-2] > rates[-1] == 0
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "plateau"])
def test_scores_change_no_schedule_but_plateau(name):
    schedule = build(name, patience=0)
    before = [schedule.lr(step) for step in range(TOTAL)]
    for score in (0.9, 0.1, 0.1, 0.1):
        schedule.end_epoch(score)
    assert [schedule.lr(step) for step in range(TOTAL)] == before
    assert schedule.state() == {}


def test_plateau_keeps_its_peak_while_scores_rise():
    assert peaks(build("plateau", patience=0), np.linspace(0.1, 0.9, 10)) == [PEAK] * 10


def test_plateau_drops_while_scores_fall():
    rates = peaks(build("plateau", patience=0, factor=0.5), [0.9, 0.8, 0.7])
    assert rates == [PEAK, PEAK / 2, PEAK / 4]


def test_plateau_waits_for_more_than_patience_epochs_and_starts_counting_anew():
    rates = peaks(build("plateau", patience=2, factor=0.5), [0.5, 0.5, 0.4, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6])
    assert rates == [PEAK] * 3 + [PEAK / 2] * 6 + [PEAK / 4]


def test_plateau_takes_a_score_that_is_not_a_number_for_no_better():
    assert peaks(build("plateau", patience=0, factor=0.5), [0.5, float("nan"), 0.6]) == [PEAK, PEAK / 2, PEAK / 2]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("seed", range(5))
def test_a_schedule_that_goes_on_from_its_state_equals_one_that_never_stopped(name, seed):
    scores = np.random.default_rng(seed).uniform(size=EPOCHS).tolist()
    whole, first, second = (build(name, patience=1, warmup=0.1) for _ in range(3))
    expected = peaks(whole, scores)
    before = peaks(first, scores[:5])
    second.load_state(json.loads(json.dumps(first.state())))
    assert before + peaks(second, scores[5:]) == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_reads_its_own_settings_and_no_others(name):
    read = set()
    build_schedule(Watched(ScheduleConfig(name=name), read), PEAK, PER_EPOCH, EPOCHS)
    assert read == SETTINGS[name]


def test_an_unknown_schedule_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="schedule/name: 'cosin' does not exist; did you mean cosine.*constant, cosine, plateau, step"):
        build("cosin")
