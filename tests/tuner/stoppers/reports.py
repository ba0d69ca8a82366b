"""Searches in small: what trials report, what the records hold of them, and what a pruner makes of it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import TrialScheduler

from trainables.config import TrialConfig
from trainables.metrics import DEFAULT, METRICS, Metric
from trainables.record import Record, Result
from tuner.settings import RunSettings
from tuner.stoppers.pruner import Pruner, spares

F1 = METRICS[DEFAULT]
TRIAL = SimpleNamespace(config={"values": {}})
ERROR = Metric("error", "error rate", direction="minimize")


def stopper(pruner, epochs=9, **settings):
    """A pruner as a run has it."""
    return RunSettings(pruner=pruner, epochs=epochs, **settings).stopper()


def none_spared(number):
    return False


def pruner_of(name="asha", *, metric=F1, spared=none_spared, decided=lambda number, decision: None, asked=lambda number: None, **settings):
    """A pruner that Ray asks. By default ASHA with rungs at 1, 2, 4 and 8 of 9 epochs."""
    return Pruner(stopper(name, **{"reduction": 2, **settings}), metric, spared=spared, decided=decided, asked=asked)


def reported(pruner, number, score, *, epoch=1, last=False):
    """Whether a trial is stopped at a report."""
    return pruner.on_trial_result(None, TRIAL, report(number, score, epoch, last)) == TrialScheduler.STOP


def report(number, score, epoch=1, last=False):
    """What Tune hands on of an epoch."""
    return {"number": number, "epoch": epoch, "score": score, "last": last}


def record_of(number, scores, state, *, cause="", decisions=(), sign=1, epochs=9):
    """The record of a trial with these scores, one an epoch; `epochs`: of its schedule."""
    config = TrialConfig.from_values({"epochs": epochs, "model": {"backbone": "any"}, "optimizer": {"lr": 0.1}})
    reports = tuple({"epoch": epoch, "score": score, "last": state == "finished"} for epoch, score in enumerate(scores, start=1))
    best = int(np.argmax(sign * np.array(scores))) + 1 if scores else 0
    result = Result(state, "in words", best, "split", "CPU", "0.1", cause=cause)
    return Record(Path("trials") / str(number), number, config, reports, result, tuple(decisions))


class Search:
    """A pruner, and what the records hold of each trial."""

    def __init__(self, name, scores, fails_after, spared, metric=F1):
        """
        Args:
            name: of the pruner.
            scores: (trials, epochs) what each trial will report.
            fails_after: (trials,) the epoch after which it diverges.
            spared: share of the trials.
        """
        self.name, self.scores, self.fails_after, self.spared, self.metric = name, scores, fails_after, spared, metric
        trials, self.epochs = scores.shape
        self.curves = {number: [] for number in range(trials)}
        self.decisions = {number: [] for number in range(trials)}
        self.states = dict.fromkeys(range(trials), "interrupted")
        self.answers = []
        self.begin()

    def begin(self):
        settings = {"epochs": self.epochs, "reduction": 2, "startup": 2}
        decided = lambda number, decision: self.decisions[number].append(decision)  # noqa: E731
        self.pruner = pruner_of(self.name, metric=self.metric, spared=spares(self.spared), decided=decided, **settings)

    def begin_again(self, unheard):
        """As another command does, with nothing but the records; of one trial the last report has not been heard."""
        self.begin()
        causes = {"failed": "diverged"}
        records = [
            record_of(number, self.curves[number], state, cause=causes.get(state, ""), decisions=self.decisions[number])
            for number, state in self.states.items()
        ]
        self.pruner.recall(records)
        for record in records:
            if record.result.state == "interrupted" and record.reports and record.number != unheard:
                assert not self.pruner.stops_earlier(record)

    def running(self):
        return [number for number, state in self.states.items() if state == "interrupted"]

    def write(self, number):
        """The trial's process tells its record of another epoch."""
        self.curves[number].append(float(self.scores[number, len(self.curves[number])]))

    def hear(self, number):
        """Tune tells the pruner of that epoch."""
        epoch = len(self.curves[number])
        last = epoch == self.epochs
        stopped = reported(self.pruner, number, self.curves[number][-1], epoch=epoch, last=last)
        self.answers.append((number, epoch, stopped, self.pruner.reasons.get(number)))
        if stopped or last:
            self.states[number] = "stopped" if stopped else "finished"
        elif epoch == self.fails_after[number]:
            self.states[number] = "failed"


def search_through(name, seed, *, cut=None, metric=F1, spared=None):
    """A search whose trials report in a random order; cut off at a step, between record and pruner, it resumes from the records."""
    rng = np.random.default_rng(seed)
    # One decimal for ties.
    scores, fails_after = rng.random((12, 9)).round(1), rng.integers(1, 40, size=12)
    share = float(rng.choice([0, 0.1, 0.5]))
    search = Search(name, scores * metric.sign, fails_after, share if spared is None else spared, metric)
    while search.running():
        number = int(rng.choice(search.running()))
        search.write(number)
        if len(search.answers) == cut:
            search.begin_again(number)
        search.hear(number)
    return search
