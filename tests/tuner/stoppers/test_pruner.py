import numpy as np
import pytest

from tests.messages import missing
from tests.tuner.stoppers.reports import F1, none_spared, pruner_of, record_of, report, reported, stopper
from trainables.record import Decision
from tuner.stoppers.pruner import Pruner, reached_pruner, why_stopped

# What records say


@pytest.mark.parametrize("seed", range(20))
def test_every_epoch_gets_its_own_score_and_no_later_one(seed):
    rng = np.random.default_rng(seed)
    pruner = pruner_of(epochs=28)
    scores = [rng.random(rng.integers(0, 29)).tolist() for _ in range(10)]
    states = rng.choice(["finished", "stopped", "failed"], size=10)
    pruner.recall([record_of(number, scores[number], states[number], epochs=28) for number in range(10)])
    for epoch in range(1, 29):
        assert pruner.history({}).at(epoch) == {number: curve[epoch - 1] for number, curve in enumerate(scores) if len(curve) >= epoch}


def test_every_report_has_reached_the_pruner_but_perhaps_the_last_of_a_trial_that_was_cut_off():
    decisions = [Decision(2, 0.2, 0, None, True)]
    assert reached_pruner(record_of(0, [0.1, 0.2], "interrupted"), 1), "it trained epoch 2"
    assert not reached_pruner(record_of(0, [0.1, 0.2], "interrupted"), 2)
    assert reached_pruner(record_of(0, [0.1, 0.2], "interrupted", decisions=decisions), 2)
    assert reached_pruner(record_of(0, [0.1, 0.2], "stopped"), 2)
    assert reached_pruner(record_of(0, [0.1, 0.2], "finished"), 2)
    assert reached_pruner(record_of(0, [0.1, 0.2], "failed", cause="diverged"), 2)
    # Its process may have died between telling the record and telling Tune.
    assert not reached_pruner(record_of(0, [0.1, 0.2], "failed", cause="crash"), 2)
    assert reached_pruner(record_of(0, [0.1, 0.2], "failed", cause="crash", decisions=decisions), 2)


def test_trials_whose_schedule_had_another_length_are_not_compared_with():
    pruner = pruner_of(epochs=20)
    pruner.recall([record_of(number, [0.9, 0.9], "stopped", epochs=10 if number % 2 else 20) for number in range(6)])
    assert set(pruner.history({}).at(1)) == {0, 2, 4}


def test_an_epoch_that_a_trial_has_to_repeat_is_not_decided_on_again():
    """Its reports end with the epoch that it resumes from, its decisions do not."""
    decided = []
    pruner = pruner_of(decided=lambda *decision: decided.append(decision))
    pruner.recall([record_of(0, [0.9, 0.9], "stopped"), record_of(1, [0.5], "interrupted", decisions=[Decision(2, 0.8, 1, 0.7, True)])])
    assert pruner.history({}).at(2) == {0: 0.9, 1: 0.8}
    assert not reported(pruner, 1, 0.1, epoch=2)
    assert decided == []


@pytest.mark.parametrize("name, ends", [("asha", True), ("hyperband", False), ("median", False), ("none", False)])
def test_what_another_pruner_decided_does_not_end_a_trial(name, ends):
    record = record_of(1, [0.2], "interrupted", decisions=[Decision(1, 0.2, 1, 0.8, False)])
    pruner = pruner_of(name)
    pruner.recall([record])
    assert pruner.stops_earlier(record) == ends


def test_a_decision_at_an_epoch_that_is_no_rung_any_more_does_not_end_a_trial():
    record = record_of(1, [0.2], "interrupted", decisions=[Decision(1, 0.2, 1, 0.8, False)])
    assert not pruner_of(grace=2).stops_earlier(record)
    assert pruner_of(grace=1).stops_earlier(record)


# As Ray asks


def test_ray_is_told_to_stop_a_hopeless_trial_but_never_one_that_has_ended_itself():
    pruner = pruner_of()
    assert not reported(pruner, 0, 0.5)
    assert reported(pruner, 1, 0.4)
    assert not reported(pruner, 2, 0.1, last=True)
    assert list(pruner.reasons) == [1]
    assert list(pruner.history({}).at(1)) == [0, 1, 2], "the score of one that has ended itself counts"


def test_a_spared_trial_is_decided_on_and_counts_but_is_not_stopped():
    decided = []
    pruner = pruner_of(spared=lambda number: number == 1, decided=lambda *decision: decided.append(decision))
    assert [reported(pruner, number, score) for number, score in enumerate([0.5, 0.1, 0.2])] == [False, False, True]
    assert decided == [
        (0, Decision(1, 0.5, 0, None, True)),
        (1, Decision(1, 0.1, 1, 0.5, False)),
        (2, Decision(1, 0.2, 2, pytest.approx(0.3), False)),
    ]
    assert pruner.reasons == {2: why_stopped(decided[2][1], pruner.stopper, F1)}


def test_a_decision_is_reported_before_it_takes_effect():
    reasons_when_told = []
    pruner = pruner_of(decided=lambda *decision: reasons_when_told.append(dict(pruner.reasons)))
    reported(pruner, 0, 0.5)
    reported(pruner, 1, 0.4)
    assert reasons_when_told == [{}, {}] and 1 in pruner.reasons


def test_the_reason_says_when_and_how_far_below_which_cutoff():
    pruner = pruner_of(grace=2)
    for number, score in enumerate([0.5, 0.7, 0.2]):
        reported(pruner, number, score, epoch=2)
    assert list(pruner.reasons) == [2] and not missing(pruner.reasons[2], "ASHA", "epoch 2", "macro F1 0.200", "0.600 of 2 trials")


def test_a_trial_is_compared_with_those_that_predict_the_same():
    def predicts(values):
        return values["task"]

    pruner = Pruner(stopper("asha", reduction=2), F1, spared=none_spared, decided=lambda number, decision: None, predicts=predicts)
    for number, (task, score) in enumerate([("gender", 0.9), ("age", 0.5), ("gender", 0.8), ("age", 0.6)]):
        assert pruner.stops(number, report(number, score), {"task": task}) == (number == 2)
    assert pruner.history({"task": "age"}).at(1) == {1: 0.5, 3: 0.6}
