"""Asynchronous successive halving over epochs, stopping variant: at each rung a trial passes if it is among the best so far.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020; cutoff as in Ray's AsyncHyperBand.
"""

from collections.abc import Sequence

import numpy as np

from trainables.record import Decision
from trainables.registry import setting
from tuner.stoppers.history import GraceSettings, History, Reduction, Stopper, TrialReport


class AshaSettings(GraceSettings):
    """Of successive halving."""

    reduction: Reduction = setting("asha, hyperband: about one trial in this many passes each rung", 3.0)


def asha(settings: AshaSettings, epochs: int) -> Stopper:
    rungs = halving_rungs(settings.grace, settings.reduction, epochs)

    def decide(history: History, trial: TrialReport) -> Decision | None:
        if trial.epoch not in rungs:
            return None
        return halve("asha", trial, list(history.at(trial.epoch).values()), settings.reduction)

    return Stopper("asha", "ASHA", rungs, decide)


def halving_rungs(grace: float, reduction: float, epochs: int) -> tuple[int, ...]:
    """The epochs grace, grace x reduction, ..., rounded, as far as they come before the last one."""
    rungs, epoch = [], float(grace)
    while round(epoch) < epochs:
        rungs.append(round(epoch))
        epoch *= reduction
    return tuple(dict.fromkeys(rungs))


def halve(pruner: str, trial: TrialReport, others: Sequence[float], reduction: float) -> Decision:
    """Whether a trial is among the best of a rung, which the others reached before it; the first always is."""
    cutoff = float(np.percentile(others, (1 - 1 / reduction) * 100)) if others else None
    return Decision(trial.epoch, trial.score, len(others), cutoff, cutoff is None or trial.score >= cutoff, pruner)
