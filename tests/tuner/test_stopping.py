import signal
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from trainables.config import TrialConfig
from trainables.record import Decision, Record, Result
from tuner.stopping import Asha, Rungs, SoftStop, place_of, restore_rungs, spares, was_judged, why_stopped

CONFIG = TrialConfig.from_values({"epochs": 9, "model": {"backbone": "any"}, "optimizer": {"lr": 0.1}})


def record_of(number, scores, state, *, cause="", decisions=()):
    """The record of a trial with these scores, one an epoch."""
    reports = tuple({"epoch": epoch, "score": score, "last": state == "finished"} for epoch, score in enumerate(scores, start=1))
    best = int(np.argmax(scores)) + 1 if scores else 0
    result = Result(state, "in words", best, "split", "CPU", "0.1", cause=cause)
    return Record(Path("trials") / str(number), number, CONFIG, reports, result, tuple(decisions))


# Rungs


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
    rungs = Rungs(grace=grace, reduction=reduction, epochs=epochs)
    bracket = _Bracket(grace, epochs, reduction, 0)

    def judged_by_us(number, epoch, score):
        decision = rungs.judge(number, epoch, score)
        return decision is not None and not decision.passed

    def judged_by_ray(number, epoch, score):
        # The last epoch decides nothing here: a trial that is through has finished.
        if epoch == epochs:
            return False
        return bracket.on_result(SimpleNamespace(trial_id=number), epoch, score) == TrialScheduler.STOP

    ours, rays = (play(judge, np.random.default_rng(seed), 25, epochs) for judge in (judged_by_us, judged_by_ray))
    assert ours == rays
    assert ours


def test_only_the_epochs_of_rungs_decide():
    rungs = Rungs(grace=1, reduction=3, epochs=27)
    assert list(rungs.scores) == [1, 3, 9]
    for number in range(9):
        rungs.judge(number, 1, 0.9)
    assert rungs.judge(10, 2, 0.0) is None
    assert not rungs.judge(11, 1, 0.0).passed


@pytest.mark.parametrize("epochs", [1, 2])
def test_there_is_no_rung_where_grace_covers_all_epochs(epochs):
    assert Rungs(grace=epochs, reduction=3, epochs=epochs).scores == {}


def test_a_fraction_as_reduction_gives_rungs_at_whole_epochs():
    assert list(Rungs(grace=1, reduction=1.5, epochs=10).scores) == [1, 2, 3, 5, 8]


def test_a_trial_is_judged_once_though_it_repeats_an_epoch_after_a_crash():
    rungs = Rungs(grace=1, reduction=2, epochs=4)
    rungs.judge(0, 1, 0.5)
    assert rungs.judge(1, 1, 0.6).passed
    assert rungs.judge(1, 1, 0.1) is None
    assert rungs.scores[1] == {0: 0.5, 1: 0.6}


def test_the_first_of_a_rung_and_one_as_good_as_the_cutoff_go_on():
    rungs = Rungs(grace=1, reduction=2, epochs=4)
    assert rungs.judge(0, 1, 0.3) == Decision(epoch=1, score=0.3, place=0, cutoff=None, passed=True)
    assert rungs.judge(1, 1, 0.3) == Decision(epoch=1, score=0.3, place=1, cutoff=0.3, passed=True)


def test_the_reason_says_when_and_how_far_below_which_cutoff():
    rungs = Rungs(grace=2, reduction=2, epochs=9)
    rungs.judge(0, 2, 0.5)
    rungs.judge(1, 2, 0.7)
    decision = rungs.judge(2, 2, 0.2)
    assert not decision.passed
    assert why_stopped(decision) == "ASHA stopped it at epoch 2: macro F1 0.200 is below the cutoff 0.600 of 2 trials"


# Rungs from records


@pytest.mark.parametrize("seed", range(20))
def test_every_rung_gets_the_score_of_its_own_epoch_and_no_later_one(seed):
    rng = np.random.default_rng(seed)
    rungs = Rungs(grace=1, reduction=3, epochs=28)
    scores = [rng.random(rng.integers(0, 29)).tolist() for _ in range(10)]
    states = rng.choice(["finished", "stopped", "failed"], size=10)
    restore_rungs(rungs, [record_of(number, scores[number], states[number]) for number in range(10)])
    assert rungs.scores == {
        epoch: {number: curve[epoch - 1] for number, curve in enumerate(scores) if len(curve) >= epoch} for epoch in (1, 3, 9, 27)
    }


def test_a_rung_is_filled_in_the_order_of_judging_and_then_by_number():
    rungs = Rungs(grace=1, reduction=3, epochs=3)
    places = {3: 0, 1: 2, 4: 1}
    records = [
        record_of(number, [0.1], "stopped", decisions=[Decision(1, 0.1, places[number], None, True)] if number in places else ())
        for number in range(6)
    ]
    restore_rungs(rungs, records)
    assert list(rungs.scores[1]) == [3, 4, 1, 0, 2, 5]
    assert place_of(records[4], 1) == 1 and place_of(records[4], 3) == place_of(records[0], 1) > 10**9


def test_asha_has_seen_every_report_but_perhaps_the_last_of_a_trial_that_was_cut_off():
    judged = [Decision(2, 0.2, 0, None, True)]
    assert was_judged(record_of(0, [0.1, 0.2], "interrupted"), 1), "it went on to epoch 2"
    assert not was_judged(record_of(0, [0.1, 0.2], "interrupted"), 2)
    assert was_judged(record_of(0, [0.1, 0.2], "interrupted", decisions=judged), 2)
    assert was_judged(record_of(0, [0.1, 0.2], "stopped"), 2)
    assert was_judged(record_of(0, [0.1, 0.2], "finished"), 2)
    assert was_judged(record_of(0, [0.1, 0.2], "failed", cause="diverged"), 2)
    # Its process may have died between telling the record and telling Tune.
    assert not was_judged(record_of(0, [0.1, 0.2], "failed", cause="crash"), 2)
    assert was_judged(record_of(0, [0.1, 0.2], "failed", cause="crash", decisions=judged), 2)


class Search:
    """A search in small: ASHA, and what the records hold of each trial."""

    def __init__(self, scores, fails_after, spared):
        """
        Args:
            scores: (trials, epochs) what each trial will report.
            fails_after: (trials,) the epoch after which it diverges.
            spared: share of the trials.
        """
        self.scores, self.fails_after, self.spared = scores, fails_after, spared
        trials, self.epochs = scores.shape
        self.curves = {number: [] for number in range(trials)}
        self.decisions = {number: [] for number in range(trials)}
        self.states = dict.fromkeys(range(trials), "interrupted")
        self.answers = []
        self.begin()

    def begin(self):
        rungs = Rungs(grace=1, reduction=2, epochs=self.epochs)
        self.asha = Asha(rungs, spared=spares(self.spared), judged=lambda number, decision: self.decisions[number].append(decision))

    def begin_again(self):
        """As another command does, with nothing but the records."""
        self.begin()
        causes = {"failed": "diverged"}
        restore_rungs(
            self.asha.rungs,
            [
                record_of(number, self.curves[number], state, cause=causes.get(state, ""), decisions=self.decisions[number])
                for number, state in self.states.items()
            ],
        )

    def running(self):
        return [number for number, state in self.states.items() if state == "interrupted"]

    def write(self, number):
        """The trial's process tells its record of another epoch."""
        self.curves[number].append(float(self.scores[number, len(self.curves[number])]))

    def hear(self, number):
        """Tune tells ASHA of that epoch."""
        epoch = len(self.curves[number])
        result = {"number": number, "epoch": epoch, "score": self.curves[number][-1], "last": epoch == self.epochs}
        stopped = self.asha.on_trial_result(None, None, result) == TrialScheduler.STOP
        self.answers.append((number, epoch, stopped, self.asha.reasons.get(number)))
        if stopped or result["last"]:
            self.states[number] = "stopped" if stopped else "finished"
        elif epoch == self.fails_after[number]:
            self.states[number] = "failed"


def search_through(seed, cut=None):
    """A search whose trials report in a random order; cut off at a step, between record and ASHA, it goes on from the records."""
    rng = np.random.default_rng(seed)
    # One decimal for ties.
    search = Search(rng.random((12, 9)).round(1), rng.integers(1, 40, size=12), spared=float(rng.choice([0, 0.1, 0.5])))
    while search.running():
        number = int(rng.choice(search.running()))
        search.write(number)
        if len(search.answers) == cut:
            search.begin_again()
        search.hear(number)
    return search


def test_a_search_cut_off_anywhere_decides_afterwards_as_one_that_was_not():
    stopped = spared = 0
    for seed in range(200):
        through = search_through(seed)
        cut_off = search_through(seed, cut=int(np.random.default_rng(seed).integers(len(through.answers))))
        assert cut_off.answers == through.answers, seed
        assert cut_off.decisions == through.decisions, seed
        assert cut_off.asha.rungs.scores == through.asha.rungs.scores, seed
        failing = [number for number, judged in through.decisions.items() if not all(decision.passed for decision in judged)]
        stopped += sum(through.states[number] == "stopped" for number in failing)
        spared += sum(through.states[number] == "finished" for number in failing)
    assert stopped > 200 and spared > 50, "the property means something"


# ASHA as Ray asks it


def heard(asha, number, score, *, epoch=1, last=False):
    return asha.on_trial_result(None, None, {"number": number, "epoch": epoch, "score": score, "last": last})


def nobody(number):
    return False


def test_ray_is_told_to_stop_a_hopeless_trial_but_never_one_that_has_ended_itself():
    asha = Asha(Rungs(grace=1, reduction=2, epochs=4), spared=nobody, judged=lambda number, decision: None)
    assert heard(asha, 0, 0.5) == TrialScheduler.CONTINUE
    assert heard(asha, 1, 0.4) == TrialScheduler.STOP
    assert heard(asha, 2, 0.1, last=True) == TrialScheduler.CONTINUE
    assert asha.on_trial_result(None, None, {"number": 3, "failed": "the loss is nan"}) == TrialScheduler.CONTINUE
    assert list(asha.reasons) == [1]
    assert list(asha.rungs.scores[1]) == [0, 1, 2], "the score of one that has ended itself counts"


def test_a_spared_trial_is_judged_and_counts_but_goes_on():
    told = []
    asha = Asha(Rungs(grace=1, reduction=2, epochs=4), spared=lambda number: number == 1, judged=lambda *judged: told.append(judged))
    assert [heard(asha, number, score) for number, score in enumerate([0.5, 0.1, 0.2])] == [
        TrialScheduler.CONTINUE,
        TrialScheduler.CONTINUE,
        TrialScheduler.STOP,
    ]
    assert told == [
        (0, Decision(1, 0.5, 0, None, True)),
        (1, Decision(1, 0.1, 1, 0.5, False)),
        (2, Decision(1, 0.2, 2, pytest.approx(0.3), False)),
    ]
    assert asha.reasons == {2: why_stopped(told[2][1])}


def test_a_judgement_is_told_before_it_takes_effect():
    reasons_when_told = []
    asha = Asha(Rungs(grace=1, reduction=2, epochs=4), spared=nobody, judged=lambda *judged: reasons_when_told.append(dict(asha.reasons)))
    heard(asha, 0, 0.5)
    heard(asha, 1, 0.4)
    assert reasons_when_told == [{}, {}] and 1 in asha.reasons


@pytest.mark.parametrize("share, spared", [(0, 0), (0.05, 50), (0.5, 500), (1, 1000)])
def test_the_share_of_spared_trials_is_exact_and_even(share, spared):
    chosen = [number for number in range(1000) if spares(share)(number)]
    assert len(chosen) == spared
    # Each stretch of 1/share trials has one, but for rounding.
    assert all(abs(np.diff(chosen) - 1 / share) <= 1) if share else True


# The soft stop


def test_without_a_budget_or_a_wish_nothing_stops():
    for stop in (SoftStop(None), SoftStop(3600)):
        assert not stop.asked and not stop("any", {}) and not stop.stop_all()
        assert (stop.reason, stop.code) == (None, 0)


def test_at_the_end_of_the_budget_each_trial_stops_at_its_next_report_and_that_is_no_failure():
    stop = SoftStop(0.01)
    while monotonic() <= stop.deadline:
        sleep(0.005)
    assert stop("any", {}) and not stop.stop_all()
    assert (stop.reason, stop.code) == ("the time budget", 0)


def test_a_trial_that_does_not_report_within_the_grace_is_ended_all_the_same():
    stop = SoftStop(None, grace=0.05)
    assert not stop.stop_all()
    stop.ask("Ctrl-C", 130)
    while not stop.stop_all():
        assert stop("any", {})
        sleep(0.005)
    patient = SoftStop(None, grace=3600)
    patient.ask("Ctrl-C", 130)
    assert patient("any", {}) and not patient.stop_all()


def test_only_the_first_reason_counts():
    stop = SoftStop(0.0)
    stop.ask("the disk is full", 1)
    stop.ask("Ctrl-C", 130)
    while monotonic() <= stop.deadline:
        sleep(0.005)
    assert stop.asked and (stop.reason, stop.code) == ("the disk is full", 1)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first, reason, code", [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_the_first_signal_asks_the_second_interrupts_and_afterwards_all_is_as_before(first, reason, code, second):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = SoftStop(None)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        signal.raise_signal(first)
        assert stop.asked and (stop.reason, stop.code) == (reason, code)
        signal.raise_signal(second)
    assert (stop.reason, stop.code) == (reason, code)
    assert {number: signal.getsignal(number) for number in before} == before


def test_handlers_are_put_back_after_a_quiet_search_too():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with SoftStop(None).listening():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in before} == before
