import numpy as np
import pytest

from tests.tuner.stoppers.reports import search_through, stopper
from tuner.stoppers.history import History, TrialReport
from tuner.stoppers.hyperband import bracket_of, bracket_sizes


@pytest.mark.parametrize(
    "grace, reduction, epochs, sizes",
    [(1, 3, 81, (81, 34, 15, 8, 5)), (1, 3, 9, (9, 5, 3)), (1, 3, 10, (9, 5, 3)), (1, 3, 243, (243, 98, 41, 18, 9, 6)), (5, 3, 9, (1,))],
)
def test_there_are_as_many_brackets_of_as_many_trials_as_in_the_paper(grace, reduction, epochs, sizes):
    """Table 1 of the paper has 81, 34, 15, 8, 5 for 81 epochs."""
    assert bracket_sizes(grace, reduction, epochs) == sizes


def test_brackets_follow_one_another_and_begin_again():
    assert [bracket_of(number, (3, 2, 1)) for number in range(14)] == [0, 0, 0, 1, 1, 2] * 2 + [0, 0]


@pytest.mark.parametrize("seed", range(40))
def test_each_bracket_is_successive_halving_among_its_own_trials_from_a_later_rung_on(seed):
    """Brackets at 1, 2, 4, 8; at 2, 4, 8; at 4, 8; and at 8."""
    rng = np.random.default_rng(seed)
    whole, sizes = stopper("hyperband", reduction=2), bracket_sizes(1, 2, 9)
    alone = [stopper("asha", grace=2**bracket, reduction=2) for bracket in range(len(sizes))]
    history, own = History(), [History() for _ in sizes]
    for _ in range(300):
        trial = TrialReport(int(rng.integers(60)), int(rng.integers(1, 10)), float(rng.random()), False)
        bracket = bracket_of(trial.number, sizes)
        found, expected = whole.decide(history, trial), alone[bracket].decide(own[bracket], trial)
        assert (found is None) == (expected is None)
        if found:
            assert (found.epoch, found.score, found.place, found.cutoff, found.passed) == (
                expected.epoch,
                expected.score,
                expected.place,
                expected.cutoff,
                expected.passed,
            )
        history.add(trial)
        own[bracket].add(trial)


def test_trials_of_later_brackets_are_stopped_later():
    sizes, earliest = bracket_sizes(1, 2, 9), {}
    for seed in range(60):
        for number, epoch, stopped, _ in search_through("hyperband", seed, spared=0.0).answers:
            if stopped:
                bracket = bracket_of(number, sizes)
                earliest[bracket] = min(epoch, earliest.get(bracket, 9))
    assert earliest[0] == 1
    assert all(epoch >= 2**bracket for bracket, epoch in earliest.items())
