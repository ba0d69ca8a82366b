"""When trials end early: ASHA's rungs for hopeless ones, a soft stop for all of them."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trainables.record import Decision, Record

GRACE = 20.0  # seconds for running trials to reach their next report; a machine that is taken away often grants 30


class Rungs:
    """Asynchronous successive halving over epochs, stopping variant: at each rung a trial goes on if it is among the best so far.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020; cutoff as in Ray's AsyncHyperBand.
    """

    def __init__(self, *, grace: int, reduction: float, epochs: int):
        self.reduction = reduction
        self.scores: dict[int, dict[int, float]] = {}  # rung's epoch -> trial number -> its score there, in the order of judging
        epoch = float(grace)
        while round(epoch) < epochs:
            self.scores[round(epoch)] = {}
            epoch *= reduction

    def enter(self, number: int, epoch: int, score: float) -> None:
        """Put in a score that was judged before; only the epoch of a rung has a place for one."""
        if epoch in self.scores:
            self.scores[epoch][number] = score

    def judge(self, number: int, epoch: int, score: float) -> Decision | None:
        """Enter a score and judge it; None where there is nothing to judge: no rung, or the trial is in it already."""
        rung = self.scores.get(epoch)
        if rung is None or number in rung:
            return None
        others = list(rung.values())
        rung[number] = score
        cutoff = float(np.percentile(others, (1 - 1 / self.reduction) * 100)) if others else None
        return Decision(epoch, score, len(others), cutoff, cutoff is None or score >= cutoff)


def restore_rungs(rungs: Rungs, records: Iterable[Record]) -> None:
    """Put the scores of earlier trials in: each rung gets the score of its own epoch, never a later one.

    The last report of a trial that was interrupted stays out where nobody has judged it: its process told it to the record, but died,
    or its driver did, before ASHA heard of it. `judge` is then the first to see it.
    """
    ordered = sorted(
        (place_of(record, epoch), record.number, epoch, report["score"])
        for record in records
        for report in record.reports
        if (epoch := report["epoch"]) in rungs.scores and was_judged(record, epoch)
    )
    for _, number, epoch, score in ordered:
        rungs.enter(number, epoch, score)


def was_judged(record: Record, epoch: int) -> bool:
    """Whether ASHA has seen this report: a trial goes on to its next epoch only then."""
    judged = any(decision.epoch == epoch for decision in record.decisions)
    cut_off = record.result.state == "interrupted" or record.result.cause == "crash"
    return judged or not cut_off or record.reports[-1]["epoch"] > epoch


def place_of(record: Record, epoch: int) -> int:
    """The place that a trial had in a rung; where none is noted, after all others."""
    return next((decision.place for decision in record.decisions if decision.epoch == epoch), np.iinfo(np.int64).max)


def why_stopped(decision: Decision) -> str:
    """The reason of a trial that ASHA stopped, in plain words."""
    score = f"macro F1 {decision.score:.3f} is below the cutoff {decision.cutoff:.3f} of {decision.place} trials"
    return f"ASHA stopped it at epoch {decision.epoch}: {score}"


class Asha(FIFOScheduler):
    """Ray's scheduler over `Rungs`. `reasons` says in plain words why each stopped trial was stopped."""

    def __init__(self, rungs: Rungs, *, spared: Callable[[int], bool], judged: Callable[[int, Decision], None]):
        """
        Args:
            spared: whether a trial, by its number, may not be stopped; its scores count in the rungs all the same.
            judged: told of each decision before it takes effect.
        """
        super().__init__()
        self.rungs = rungs
        self.reasons: dict[int, str] = {}
        self._spared = spared
        self._judged = judged

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "score" in result and self.stops(result["number"], result):
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def stops(self, number: int, report: dict[str, Any]) -> bool:
        """Judge a report: whether the trial should end here. A trial that ends here by itself is judged, but not stopped."""
        decision = self.rungs.judge(number, report["epoch"], report["score"])
        if decision is None:
            return False
        self._judged(number, decision)
        return self._ends(number, decision, report)

    def stops_earlier(self, record: Record) -> bool:
        """Whether a trial of an earlier command should end at its last report, which its driver may have judged before it died."""
        number, last = record.number, record.reports[-1]
        found = next((decision for decision in record.decisions if decision.epoch == last["epoch"] in self.rungs.scores), None)
        return self._ends(number, found, last) if found else self.stops(number, last)

    def _ends(self, number: int, decision: Decision, report: dict[str, Any]) -> bool:
        if decision.passed or report["last"] or self._spared(number):
            return False
        self.reasons[number] = why_stopped(decision)
        return True


def spares(share: float) -> Callable[[int], bool]:
    """Whether ASHA must spare a trial: evenly one in 1/share, by number, so a run that goes on spares the same ones."""
    return lambda number: int((number + 1) * share) > int(number * share)


class SoftStop(tune.Stopper):
    """Ends the search between two reports: at the time budget's end, when a signal asks, or when nothing can be written any more."""

    def __init__(self, budget: float | None, grace: float = GRACE):
        """
        Args:
            budget: seconds from now, or None for no end.
            grace: seconds after which a trial that has not reported is ended all the same.
        """
        self.deadline = None if budget is None else monotonic() + budget
        self.reason: str | None = None
        self.code = 0  # exit code of the command
        self.no_room = False  # whether records could not be written
        self._grace = grace
        self._asked = 0.0

    def ask(self, reason: str, code: int, *, no_room: bool = False) -> None:
        """Begin to stop; only the first reason counts."""
        if self.reason is None:
            self.reason, self.code, self.no_room, self._asked = reason, code, no_room, monotonic()

    @property
    def asked(self) -> bool:
        if self.deadline is not None and monotonic() > self.deadline:
            self.ask("the time budget", 0)
        return self.reason is not None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial that has just reported should end."""
        return self.asked

    def stop_all(self) -> bool:
        return self.asked and monotonic() - self._asked > self._grace

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a wish to stop; the second one raises KeyboardInterrupt."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: FrameType | None) -> None:
            for either in before:
                signal.signal(either, signal.default_int_handler)
            self.ask("Ctrl-C" if number == signal.SIGINT else "SIGTERM", 128 + number)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
