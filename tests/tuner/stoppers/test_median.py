import numpy as np
import optuna
import pytest

from tests.tuner.stoppers.reports import pruner_of, reported
from trainables.record import Decision

EPOCHS = 6


@pytest.mark.parametrize("grace, startup", [(1, 2), (1, 5), (3, 2)])
@pytest.mark.parametrize("seed", range(15))
def test_the_same_trials_are_stopped_as_by_optunas_median_pruner(seed, grace, startup):
    rng = np.random.default_rng(seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rule = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=grace)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), pruner=rule)
    ours = pruner_of("median", grace=grace, startup=startup, epochs=EPOCHS)
    running, epochs, stopped = {}, dict.fromkeys(range(40), 0), 0
    while running or len(study.trials) < len(epochs):
        # Four at a time, as on four cores.
        while len(running) < 4 and len(study.trials) < len(epochs):
            trial = study.ask()
            running[trial.number] = trial
        number = int(rng.choice(list(running)))
        trial, score, epochs[number] = running[number], round(float(rng.random()), 1), epochs[number] + 1
        trial.report(score, step=epochs[number])
        last = epochs[number] == EPOCHS
        hopeless = trial.should_prune() and not last
        assert reported(ours, number, score, epoch=epochs[number], last=last) == hopeless
        if hopeless or last:
            study.tell(running.pop(number), score if last else None, state=None if last else optuna.trial.TrialState.PRUNED)
        stopped += hopeless
    assert stopped


def test_what_a_trial_reached_before_counts_too():
    decided = []
    pruner = pruner_of("median", startup=1, decided=lambda number, decision: decided.append(decision))
    for epoch in (1, 2):
        reported(pruner, 0, 0.5, epoch=epoch, last=epoch == 2)
    assert not reported(pruner, 1, 0.6) and not reported(pruner, 1, 0.4, epoch=2)
    assert decided[-1] == Decision(2, 0.4, 1, 0.5, True, "median")
    assert not reported(pruner, 2, 0.5) and reported(pruner, 3, 0.4)


def test_while_too_few_have_finished_no_trial_is_stopped_and_that_is_on_record():
    decided = []
    pruner = pruner_of("median", startup=2, decided=lambda number, decision: decided.append(decision))
    reported(pruner, 0, 0.9, last=True)
    assert not reported(pruner, 1, 0.1)
    assert decided == [Decision(1, 0.9, 0, None, True, "median"), Decision(1, 0.1, 1, None, True, "median")]
