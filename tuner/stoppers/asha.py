"""Asynchronous successive halving over epochs, stopping variant: at each rung a trial passes if it is among the best so far.

How many pass depends on how well the rung has predicted the end: one in `reduction` where early scores tell, more where they mislead.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020; cutoff as in Ray's AsyncHyperBand. That fewer are
stopped where a rung misleads is ours; it was chosen by simulation (`python -m benchmarks.search`).
"""

from collections.abc import Sequence

import numpy as np

from trainables.record import Decision
from trainables.registry import setting
from tuner.stoppers.history import GraceSettings, History, Reduction, Stopper, TrialReport


class AshaSettings(GraceSettings):
    """Of successive halving."""

    reduction: Reduction = setting(
        "asha, hyperband: about one trial in this many passes each rung; asha: more where early scores predict the final ones badly", 3.0
    )


# Spearman's rank correlation of a rung with the end from which on one trial in `reduction` passes it, and up to which all do.
TELLING, MISLEADING = 0.6, 0.2
# What is believed before any trial has finished, and how many finished trials outweigh that.
BELIEVED, WEIGHT = 0.6, 4


def asha(settings: AshaSettings, epochs: int) -> Stopper:
    rungs = halving_rungs(settings.grace, settings.reduction, epochs)

    def decide(history: History, trial: TrialReport) -> Decision | None:
        if trial.epoch not in rungs:
            return None
        share = passing_share(settings.reduction, believed_correlation(history, trial.epoch))
        return halve("asha", trial, list(history.at(trial.epoch).values()), share)

    return Stopper("asha", "ASHA", epochs, rungs, decide)


def halving_rungs(grace: float, reduction: float, epochs: int) -> tuple[int, ...]:
    """The epochs grace, grace x reduction, ..., rounded, as far as they come before the last one."""
    rungs, epoch = [], float(grace)
    while round(epoch) < epochs:
        rungs.append(round(epoch))
        epoch *= reduction
    return tuple(dict.fromkeys(rungs))


def halve(pruner: str, trial: TrialReport, others: Sequence[float], share: float) -> Decision:
    """Whether a trial is among the best share of a rung, which the others reached before it; the first always is."""
    cutoff = float(np.percentile(others, (1 - share) * 100)) if others else None
    return Decision(trial.epoch, trial.score, len(others), cutoff, cutoff is None or trial.score >= cutoff, pruner)


def passing_share(reduction: float, correlation: float) -> float:
    """The share of the trials that pass a rung: 1 / reduction where its scores tell, 1 where they mislead, linear in between."""
    misled = min(max((TELLING - correlation) / (TELLING - MISLEADING), 0.0), 1.0)
    return 1 / reduction + (1 - 1 / reduction) * misled


def believed_correlation(history: History, epoch: int) -> float:
    """Spearman's rank correlation of finished trials' scores at an epoch with their best ones, weighed with what was believed before.

    Most of these trials passed the rung: over them the correlation is lower than over all, so rather too many pass.
    """
    finished = [number for number in sorted(history.finished) if history.has(number, epoch)]
    if len(finished) < 3:
        return BELIEVED
    last = max(history.scores)
    early = ranks([history.at(epoch)[number] for number in finished])
    final = ranks([history.best(number, last) for number in finished])
    spread = early.std() * final.std()
    measured = float(((early - early.mean()) * (final - final.mean())).mean() / spread) if spread else 0.0
    return (len(finished) * measured + WEIGHT * BELIEVED) / (len(finished) + WEIGHT)


def ranks(values: Sequence[float]) -> np.ndarray:
    """The rank of each value, the lowest has 0; equal ones share theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]
