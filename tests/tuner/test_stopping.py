import signal
from time import monotonic, sleep
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from tuner.stopping import Asha, Rungs, SoftStop


def play(judge, rng, trials, epochs):
    """Let trials report in a random order until they are stopped or through; returns who was stopped, and when."""
    epoch = dict.fromkeys(range(trials), 0)
    stopped = []
    while epoch:
        number = int(rng.choice(list(epoch)))
        epoch[number] += 1
        # One decimal: ties are as likely as in small validation sets.
        if judge(number, epoch[number], round(float(rng.random()), 1)):
            stopped.append((number, epoch[number]))
        if (number, epoch[number]) in stopped or epoch[number] == epochs:
            del epoch[number]
    return stopped


@pytest.mark.parametrize("grace, reduction, epochs", [(1, 2, 10), (1, 3, 28), (2, 3, 20), (3, 4, 13), (5, 2, 6)])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_trials_are_stopped_as_by_rays_own_bracket(seed, grace, reduction, epochs):
    rungs = Rungs(grace=grace, reduction=reduction, epochs=epochs)
    bracket = _Bracket(grace, epochs, reduction, 0)

    def judged_by_ray(number, epoch, score):
        # The last epoch decides nothing here: a trial that is through has finished.
        if epoch == epochs:
            return False
        return bracket.on_result(SimpleNamespace(trial_id=number), epoch, score) == TrialScheduler.STOP

    ours, rays = (play(judge, np.random.default_rng(seed), 25, epochs) for judge in (rungs.judge, judged_by_ray))
    assert ours == rays
    assert ours


def test_only_the_epochs_of_rungs_decide():
    rungs = Rungs(grace=1, reduction=3, epochs=27)
    assert list(rungs.scores) == [1, 3, 9]
    for number in range(9):
        rungs.judge(number, 1, 0.9)
    assert rungs.judge(10, 2, 0.0) is None
    assert rungs.judge(11, 1, 0.0)


@pytest.mark.parametrize("epochs", [1, 2])
def test_there_is_no_rung_where_grace_covers_all_epochs(epochs):
    assert Rungs(grace=epochs, reduction=3, epochs=epochs).scores == {}


def test_a_fraction_as_reduction_gives_rungs_at_whole_epochs():
    assert list(Rungs(grace=1, reduction=1.5, epochs=10).scores) == [1, 2, 3, 5, 8]


def test_a_trial_is_entered_once_though_it_repeats_an_epoch_after_a_crash():
    rungs = Rungs(grace=1, reduction=2, epochs=4)
    rungs.judge(0, 1, 0.5)
    assert rungs.judge(1, 1, 0.6) is None
    assert rungs.judge(1, 1, 0.1) is None
    assert rungs.scores[1] == {0: 0.5, 1: 0.6}


def test_the_first_of_a_rung_and_one_as_good_as_the_cutoff_go_on():
    rungs = Rungs(grace=1, reduction=2, epochs=4)
    assert rungs.judge(0, 1, 0.3) is None
    assert rungs.judge(1, 1, 0.3) is None


def test_the_reason_says_when_and_how_far_below_which_cutoff():
    rungs = Rungs(grace=2, reduction=2, epochs=9)
    rungs.judge(0, 2, 0.5)
    rungs.judge(1, 2, 0.7)
    assert rungs.judge(2, 2, 0.2) == "ASHA stopped it at epoch 2: macro F1 0.200 is below the cutoff 0.600 of 2 trials"


def test_ray_is_told_to_stop_a_hopeless_trial_but_never_one_that_has_ended_itself():
    asha = Asha(Rungs(grace=1, reduction=2, epochs=4))

    def told(number, score, last=False):
        return asha.on_trial_result(None, None, {"number": number, "epoch": 1, "macro_f1": score, "last": last})

    assert told(0, 0.5) == TrialScheduler.CONTINUE
    assert told(1, 0.4) == TrialScheduler.STOP
    assert told(2, 0.1, last=True) == TrialScheduler.CONTINUE
    assert asha.on_trial_result(None, None, {"number": 3, "failed": "the loss is nan"}) == TrialScheduler.CONTINUE
    assert list(asha.reasons) == [1]


def test_the_time_budget_stops_all_trials_when_it_is_used_up_and_not_before():
    assert not SoftStop(None).stop_all()
    assert not SoftStop(3600).stop_all()
    short = SoftStop(0.01)
    while monotonic() <= short.deadline:
        sleep(0.005)
    assert short.stop_all() and short.reason == "time budget"
    assert not short("any", {}), "no trial is stopped by itself"


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    try:
        stop = SoftStop(None)
        stop.listen()
        signal.raise_signal(signal.SIGINT)
        assert stop.stop_all() and stop.reason == "Ctrl-C"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
