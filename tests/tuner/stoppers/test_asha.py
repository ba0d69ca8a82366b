from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket
from scipy.stats import rankdata, spearmanr

from tests.tuner.stoppers.reports import pruner_of, reported
from trainables.record import Decision
from tuner.stoppers.asha import BELIEVED, WEIGHT, believed_correlation, halving_rungs, passing_share, ranks
from tuner.stoppers.history import History, TrialReport


def play(stops, rng, trials, epochs):
    """Let trials report in a random order until they are stopped or through; returns who was stopped, and when."""
    epoch = dict.fromkeys(range(trials), 0)
    stopped = []
    while epoch:
        number = int(rng.choice(list(epoch)))
        epoch[number] += 1
        # One decimal: ties are as likely as in small validation sets.
        if stops(number, epoch[number], round(float(rng.random()), 1)):
            stopped.append((number, epoch[number]))
        if (number, epoch[number]) in stopped or epoch[number] == epochs:
            del epoch[number]
    return stopped


@pytest.mark.parametrize("grace, reduction, epochs", [(1, 2, 10), (1, 3, 28), (2, 3, 20), (3, 4, 13), (5, 2, 6)])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_trials_are_stopped_as_by_rays_own_bracket(seed, grace, reduction, epochs):
    pruner = pruner_of("asha", grace=grace, reduction=reduction, epochs=epochs)
    bracket = _Bracket(grace, epochs, reduction, 0)

    def stopped_by_us(number, epoch, score):
        return reported(pruner, number, score, epoch=epoch)

    def stopped_by_ray(number, epoch, score):
        # The last epoch decides nothing here: a trial that is through has finished.
        if epoch == epochs:
            return False
        return bracket.on_result(SimpleNamespace(trial_id=number), epoch, score) == TrialScheduler.STOP

    ours, rays = (play(stops, np.random.default_rng(seed), 25, epochs) for stops in (stopped_by_us, stopped_by_ray))
    assert ours == rays
    assert ours


def test_only_the_epochs_of_rungs_decide():
    assert halving_rungs(1, 3, 27) == (1, 3, 9)
    pruner = pruner_of("asha", reduction=3, epochs=27)
    for number in range(9):
        reported(pruner, number, 0.9)
    assert not reported(pruner, 10, 0.0, epoch=2)
    assert reported(pruner, 11, 0.0)


@pytest.mark.parametrize("epochs", [1, 2])
def test_there_is_no_rung_where_grace_covers_all_epochs(epochs):
    assert halving_rungs(epochs, 3, epochs) == ()


def test_a_fraction_as_reduction_gives_rungs_at_integer_epochs():
    assert halving_rungs(1, 1.5, 10) == (1, 2, 3, 5, 8)


def test_the_first_of_a_rung_and_one_as_good_as_the_cutoff_pass():
    decided = []
    pruner = pruner_of("asha", decided=lambda number, decision: decided.append(decision))
    assert not reported(pruner, 0, 0.3) and not reported(pruner, 1, 0.3)
    assert decided == [Decision(1, 0.3, 0, None, True, "asha"), Decision(1, 0.3, 1, 0.3, True, "asha")]


def finished(early, final):
    """Trials that ran to the end, with these scores at the first rung and at the end."""
    history = History()
    for number, (first, last) in enumerate(zip(early, final, strict=True)):
        history.add(TrialReport(number, 1, first, False))
        history.add(TrialReport(number, 9, last, True))
    return history


@pytest.mark.parametrize("seed", range(5))
def test_what_a_rung_says_of_the_end_is_spearmans_correlation_and_what_was_believed_before(seed):
    rng = np.random.default_rng(seed)
    # One decimal for ties; the end is better than any beginning.
    early, final = rng.random(12).round(1), 2 + rng.random(12).round(1)
    assert ranks(early.tolist()) + 1 == pytest.approx(rankdata(early))
    expected = (12 * spearmanr(early, final)[0] + WEIGHT * BELIEVED) / (12 + WEIGHT)
    assert believed_correlation(finished(early, final), 1) == pytest.approx(expected)
    assert believed_correlation(finished(early[:2], final[:2]), 1) == BELIEVED
    assert believed_correlation(finished(np.ones(9), final[:9]), 1) < BELIEVED, "equal scores say nothing"


@pytest.mark.parametrize("reduction", [1.5, 2, 3, 4])
def test_one_trial_in_reduction_passes_a_rung_that_tells_and_all_pass_one_that_misleads(reduction):
    shares = [passing_share(reduction, correlation) for correlation in np.linspace(1, -1, 21)]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (1 / reduction, 1)
    assert passing_share(reduction, BELIEVED) == 1 / reduction, "until it has been seen to mislead"


def test_fewer_are_stopped_at_a_rung_once_it_has_been_seen_to_mislead():
    scores = np.linspace(0.1, 0.9, 9)

    def stopped(final):
        pruner = pruner_of(reduction=3, epochs=9)
        pruner.histories[""] = finished(scores, final)
        return [score for score in scores if reported(pruner, 99 + round(100 * score), score)]

    assert stopped(2 - scores) == [] and len(stopped(1 + scores)) >= 4
