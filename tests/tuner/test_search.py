import math
import pickle
from itertools import islice

import numpy as np
import pytest
from optuna.trial import TrialState

from search_spaces.read import read_space
from search_spaces.schema import flat
from tuner.search import OptunaSearcher, random_draws

SPACE = """
task: {choice: [joint, [[mask], [gender, age]]]}
model: {backbone: any}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 4.0], when: {loss/name: focal}}
optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}
train: {batch_size: {int: [16, 64], step: 16}}
start:
  - {task: [[mask], [gender, age]], loss: {name: focal, gamma: 2.0}, optimizer: {lr: 1.0e-2}, train: {batch_size: 48}}
  - {loss: {name: cross_entropy}}
"""
FIXED = {"epochs": 3, "seed": 0}


@pytest.fixture
def space(tmp_path):
    (tmp_path / "my.yaml").write_text(SPACE)
    return read_space(tmp_path / "my.yaml")


def make(space, seed=0, trials=12):
    return OptunaSearcher(space, FIXED, seed=seed, trials=trials, slots=100)


def report(searcher, number, scores, last):
    """Tell the searcher what Tune tells it of a trial: every epoch, and the last result again at its end."""
    result = {}
    for epoch, score in enumerate(scores, start=1):
        result = {
            "number": number,
            "epoch": epoch,
            "macro_f1": score,
            "best": max(scores[:epoch]),
            "last": last and epoch == len(scores),
        }
        searcher.on_trial_result(str(number), result)
    searcher.on_trial_complete(str(number), result)


def search(searcher, objective, trials):
    """The configurations proposed, by path, each finished with the score that the objective gives it."""
    proposals = []
    for number in range(trials):
        proposal = searcher.suggest(str(number))
        assert proposal["number"] == number
        proposals.append(flat(proposal["values"]))
        report(searcher, number, [objective(proposals[-1])], last=True)
    return proposals


def smallness(values):
    """Best at the low end of the learning rates, which are drawn on a log scale."""
    return -math.log10(values["optimizer/lr"])


def test_the_same_seed_and_history_give_the_same_proposals_and_another_seed_others(space):
    first, again, other = (search(make(space, seed), smallness, 12) for seed in (3, 3, 4))
    assert first == again
    assert first[2:] != other[2:]


def test_proposals_depend_on_the_history(space):
    one, other = (search(make(space), objective, 12) for objective in (smallness, lambda values: -smallness(values)))
    assert one[:4] == other[:4]
    assert one != other


def test_start_entries_come_first_and_what_they_leave_open_is_drawn(space):
    first, second = search(make(space), smallness, 2)
    assert first.items() >= space.start[0].items()
    assert second["loss/name"] == "cross_entropy" and "loss/gamma" not in second
    assert 1e-5 <= second["optimizer/lr"] <= 1e-1


def test_a_proposal_is_the_whole_configuration_with_what_the_run_adds(space):
    values = make(space).suggest("0")["values"]
    assert (values["epochs"], values["seed"], values["model"]["backbone"]) == (3, 0, "any")
    assert values["task"] == [["mask"], ["gender", "age"]], "a list stays a list"


@pytest.mark.parametrize("seed", range(3))
def test_a_higher_score_is_better(space, seed):
    scores = [smallness(values) for values in search(make(space, seed), smallness, 60)]
    assert np.mean(scores[40:]) > np.mean(scores[2:22]) + 0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_conditional_value_is_proposed_only_where_it_holds(space, seed):
    proposals = search(make(space, seed), smallness, 30)
    assert {values["loss/name"] for values in proposals} == {"cross_entropy", "focal"}
    assert all(("loss/gamma" in values) == (values["loss/name"] == "focal") for values in proposals)


def test_optuna_is_told_the_truth_about_how_trials_end(space):
    searcher = make(space)
    for number in range(6):
        searcher.suggest(str(number))
    report(searcher, 0, [0.3, 0.6, 0.5], last=True)
    report(searcher, 1, [0.1, 0.2], last=False)
    searcher.on_trial_complete("2", {"number": 2, "failed": "the loss is nan"})
    searcher.on_trial_complete("3", error=True)
    searcher.on_trial_complete("4", None)
    # Kept by no public name: what Optuna believes is the very thing to prove.
    trials = searcher._study.trials
    states = [trial.state for trial in trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]
    assert trials[0].value == 0.6, "a finished trial counts with its best epoch"
    assert trials[1].intermediate_values == {1: 0.1, 2: 0.2}
    assert searcher._study.best_trial.number == 0


def test_an_epoch_that_is_repeated_after_a_crash_is_no_trouble(space):
    searcher = make(space)
    searcher.suggest("0")
    for score in (0.4, 0.4):
        searcher.on_trial_result("0", {"number": 0, "epoch": 1, "macro_f1": score, "best": score, "last": False})
    report(searcher, 0, [0.4, 0.5], last=True)
    assert searcher._study.trials[0].value == 0.5


def test_a_searcher_survives_pickling_and_goes_on_with_the_same_proposals(space):
    searcher = make(space)
    search(searcher, smallness, 8)
    twin = pickle.loads(pickle.dumps(searcher))
    assert [twin.suggest(str(n)) for n in range(8, 11)] == [searcher.suggest(str(n)) for n in range(8, 11)]


def test_random_draws_begin_with_the_start_entries_and_repeat_with_the_seed(space):
    draws = [[flat(values) for values in random_draws(space, FIXED, seed=seed, count=20)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0].items() >= space.start[0].items()
    assert len(list(islice(draws[0], 30))) == 20
