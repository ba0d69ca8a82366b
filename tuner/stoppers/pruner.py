"""A pruner as Ray Tune's scheduler, which continues from records as if the search had not been interrupted."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trainables.baseline import FIRST
from trainables.metrics import Metric
from trainables.record import Decision, Record
from tuner.stoppers.history import History, Stopper, TrialReport


class Pruner(FIFOScheduler):
    """Ray's scheduler over a `Stopper`. `reasons` says in plain words why each stopped trial was stopped."""

    def __init__(
        self,
        stopper: Stopper,
        metric: Metric,
        *,
        spared: Callable[[int], bool],
        decided: Callable[[int, Decision], None],
        asked: Callable[[int], str | None] = lambda number: None,
        predicts: Callable[[Mapping[str, Any]], str] = lambda values: "",
    ):
        """
        Args:
            metric: what scores are of; its direction says which are better.
            spared: whether a trial, by its number, may not be stopped; its scores count all the same.
            decided: called with each decision before it takes effect.
            asked: why somebody wants a trial, by its number, to end whatever it scores; None: nobody does.
            predicts: what a trial of these settings predicts; it is compared with others that predict the same.
        """
        super().__init__()
        self.stopper = stopper
        self.histories: dict[str, History] = {}  # by what their trials predict
        self.reasons: dict[int, str] = {}
        self._scored_by = metric
        self._spared = spared
        self._decided = decided
        self._asked = asked
        self._predicts = predicts

    def recall(self, records: Iterable[Record]) -> None:
        """Take in the reports of trials of earlier commands, except those whose schedule had another length: after as many epochs they were
        elsewhere on it.

        The last report of a trial that was interrupted stays out where nothing was decided about it: its process wrote it into the record,
        but died, or its driver did, before the pruner got it. `stops_earlier` is then the first to see it.
        """
        for record in records:
            if record.config.epochs == self.stopper.epochs:
                history = self.history(record.config.values())
                for reported in self._reports_of(record):
                    history.add(reported)

    def history(self, values: Mapping[str, Any]) -> History:
        """The reports so far of the trials that predict what one of these settings does."""
        return self.histories.setdefault(self._predicts(values), History())

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result.get("score") is not None and self.stops(result["number"], result, trial.config["values"]):
            return TrialScheduler.STOP
        # One that ends here by itself is finished.
        if not result.get("last", True) and (why := self._asked(result["number"])):
            self.reasons[result["number"]] = why
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def stops(self, number: int, report: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        """Take a report, once, of a trial of these settings: whether it should end here."""
        history = self.history(values)
        reported = self._as_trial_report(number, report)
        # A trial whose process died repeats its last epochs.
        if history.has(number, reported.epoch):
            return False
        decision = self.stopper.decide(history, reported)
        history.add(reported)
        if decision is None:
            return False
        cutoff = None if decision.cutoff is None else self._scored_by.sign * decision.cutoff
        decision = replace(decision, score=report["score"], cutoff=cutoff)
        self._decided(number, decision)
        return self._ends(number, decision, report)

    def stops_earlier(self, record: Record) -> bool:
        """Whether a trial of an earlier command should end at its last report, on which its driver may have decided before it died."""
        number, last = record.number, record.reports[-1]
        if last["score"] is None:
            return False
        mine = [decision for decision in record.decisions if decision.pruner == self.stopper.name and decision.epoch == last["epoch"]]
        # With other settings than then it may not ask at this epoch any more.
        if mine and self.stopper.decide(History(), self._as_trial_report(number, last)):
            return self._ends(number, mine[0], last)
        return self.stops(number, last, record.config.values())

    def _reports_of(self, record: Record) -> Iterator[TrialReport]:
        number = record.number
        for report in record.reports:
            if report["score"] is not None and reached_pruner(record, report["epoch"]):
                yield self._as_trial_report(number, report)
        # Epochs that a trial repeats are cut off its reports meanwhile.
        reported = {report["epoch"] for report in record.reports}
        for decision in record.decisions:
            if decision.epoch not in reported:
                yield TrialReport(number, decision.epoch, self._scored_by.sign * decision.score, last=False)

    def _as_trial_report(self, number: int, report: Mapping[str, Any]) -> TrialReport:
        return TrialReport(number, report["epoch"], self._scored_by.sign * report["score"], report["last"])

    def _ends(self, number: int, decision: Decision, report: Mapping[str, Any]) -> bool:
        # One that ends here by itself counts for others, but is not stopped.
        if decision.passed or report["last"] or self._spared(number):
            return False
        self.reasons[number] = why_stopped(decision, self.stopper, self._scored_by)
        return True


def reached_pruner(record: Record, epoch: int) -> bool:
    """Whether this report has reached the pruner: a trial trains its next epoch only then."""
    decided = any(decision.epoch == epoch for decision in record.decisions)
    cut_off = record.result.state == "interrupted" or record.result.cause == "crash"
    return decided or not cut_off or record.reports[-1]["epoch"] > epoch


def why_stopped(decision: Decision, stopper: Stopper, metric: Metric) -> str:
    """The reason of a trial that a pruner stopped, in words."""
    worse = "below" if metric.sign > 0 else "above"
    score = f"{metric.title} {decision.score:.3f} is {worse} the cutoff {decision.cutoff:.3f} of {decision.place} trials"
    return f"{stopper.title} stopped it at epoch {decision.epoch}: {score}"


def never_stopped(share: float) -> Callable[[int], bool]:
    """Whether a trial of a search, by its number, runs to its end: the baseline, and those that are spared."""
    spared = spares(share)
    return lambda number: number == FIRST or spared(number)


def spares(share: float) -> Callable[[int], bool]:
    """Whether a trial must be spared: evenly one in 1/share, by number, so a resumed run spares the same ones."""
    return lambda number: int((number + 1) * share) > int(number * share)
