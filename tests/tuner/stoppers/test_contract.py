"""What every pruner keeps, whatever it stops trials by."""

import numpy as np
import pytest

from tests.conftest import nightly_after
from tests.tuner.stoppers.reports import ERROR, F1, pruner_of, reported, search_through, stopper
from tuner.stoppers import STOPPERS
from tuner.stoppers.history import History, TrialReport
from tuner.stoppers.pruner import never_stopped, spares

EVERY = pytest.mark.parametrize("name", STOPPERS)
STOPPING = pytest.mark.parametrize("name", [name for name in STOPPERS if name != "none"])
SEEDS = range(60)


@EVERY
def test_the_same_reports_give_the_same_decisions(name):
    for seed in SEEDS:
        first, again = search_through(name, seed), search_through(name, seed)
        assert (first.answers, first.decisions) == (again.answers, again.decisions)


@EVERY
@pytest.mark.parametrize("seeds", nightly_after(1, [range(40), range(40, 150)]), ids=["few", "more"])
def test_a_search_cut_off_anywhere_decides_afterwards_as_one_that_was_not(name, seeds):
    for seed in seeds:
        through = search_through(name, seed)
        cut_off = search_through(name, seed, cut=int(np.random.default_rng(seed).integers(len(through.answers))))
        assert cut_off.answers == through.answers, seed
        assert cut_off.decisions == through.decisions, seed
        assert cut_off.pruner.history({}) == through.pruner.history({}), seed


@STOPPING
def test_hopeless_trials_are_stopped_with_a_reason_unless_they_are_spared(name):
    stopped = spared = 0
    for search in map(lambda seed: search_through(name, seed), SEEDS):
        failing = [number for number, found in search.decisions.items() if not all(decision.passed for decision in found)]
        assert search.pruner.reasons.keys() == {number for number, state in search.states.items() if state == "stopped"} <= set(failing)
        stopped += len(search.pruner.reasons)
        spared += sum(search.states[number] == "finished" for number in failing)
    assert stopped > 20 and spared > 5, "the property means something"


@EVERY
def test_all_are_spared_where_all_are_to_be(name):
    for seed in SEEDS:
        assert "stopped" not in search_through(name, seed, spared=1.0).states.values()


@STOPPING
def test_a_trial_is_decided_on_once_an_epoch_and_never_before_the_grace(name):
    for seed in SEEDS:
        for found in search_through(name, seed).decisions.values():
            epochs = [decision.epoch for decision in found]
            assert epochs == sorted(set(epochs)) and all(decision.pruner == name for decision in found)
    late = pruner_of(name, grace=3)
    assert not any(reported(late, number, 1 - number / 10, epoch=epoch) for number in range(9) for epoch in (1, 2))


@EVERY
def test_no_trial_is_stopped_at_its_last_epoch(name):
    for search in map(lambda seed: search_through(name, seed), SEEDS):
        assert not any(stopped for _, epoch, stopped, _ in search.answers if epoch == search.epochs)
    early = pruner_of(name, startup=1)
    for number in range(4):
        reported(early, number, 0.9, epoch=1, last=True)
    assert not reported(early, 5, 0.1, epoch=1, last=True), "it came to its own end before"


@EVERY
def test_a_metric_to_minimize_is_stopped_by_as_its_opposite_would_be_and_recorded_as_it_is(name):
    for seed in SEEDS:
        gains, errors = (search_through(name, seed, metric=metric) for metric in (F1, ERROR))
        assert [answer[:3] for answer in gains.answers] == [answer[:3] for answer in errors.answers]
        for number, found in gains.decisions.items():
            for gain, error in zip(found, errors.decisions[number], strict=True):
                assert (error.score, error.cutoff) == (-gain.score, None if gain.cutoff is None else -gain.cutoff)
                assert (error.passed, error.place) == (gain.passed, gain.place)
        assert all("error rate" in reason and "is above the cutoff" in reason for reason in errors.pruner.reasons.values())


@EVERY
def test_an_epoch_that_is_repeated_after_a_crash_changes_nothing(name):
    decided = []
    pruner = pruner_of(name, startup=1, decided=lambda *decision: decided.append(decision))
    for number in range(3):
        reported(pruner, number, 0.9, last=True)
    reported(pruner, 4, 0.9, epoch=1)
    before = list(decided)
    assert not reported(pruner, 4, 0.0, epoch=1)
    assert decided == before and pruner.history({}).at(1)[4] == 0.9


@EVERY
def test_a_trial_without_a_score_is_let_alone(name):
    pruner = pruner_of(name)
    assert pruner.on_trial_result(None, None, {"number": 3, "failed": "the loss is nan"}) == "CONTINUE"
    assert not reported(pruner, 3, None)
    assert pruner.history({}) == History()


@EVERY
def test_the_fidelity_of_early_scores_is_measured_at_epochs_between_the_grace_and_the_end(name):
    rungs = stopper(name, epochs=20, grace=2).rungs
    assert rungs and rungs[0] == 2 and all(epoch < 20 for epoch in rungs)
    assert stopper(name, epochs=20, grace=20).rungs == ()


def test_nothing_is_decided_where_nothing_stops():
    for seed in SEEDS:
        search = search_through("none", seed)
        assert not any(search.decisions.values()) and set(search.states.values()) <= {"finished", "failed"}
    assert stopper("none").decide(History(), TrialReport(0, 1, 0.5, False)) is None


@pytest.mark.parametrize("share, spared", [(0, 0), (0.05, 50), (0.5, 500), (1, 1000)])
def test_the_share_of_spared_trials_is_exact_and_even(share, spared):
    chosen = [number for number in range(1000) if spares(share)(number)]
    assert len(chosen) == spared
    assert [number for number in range(1000) if never_stopped(share)(number)] == sorted({0, *chosen}), "and the baseline"
    # Each stretch of 1/share trials has one, but for rounding.
    assert all(abs(np.diff(chosen) - 1 / share) <= 1) if share else True
