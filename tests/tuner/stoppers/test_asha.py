from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from tests.tuner.stoppers.reports import pruner_of, reported
from trainables.record import Decision
from tuner.stoppers.asha import halving_rungs


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
