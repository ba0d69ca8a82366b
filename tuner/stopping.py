"""When trials end early: ASHA's rungs for hopeless ones, a soft stop for all of them."""

import signal
from time import monotonic
from types import FrameType
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trainables.metrics import METRIC


class Rungs:
    """Asynchronous successive halving over epochs, stopping variant: at each rung a trial goes on if it is among the best so far.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020; cutoff as in Ray's AsyncHyperBand.
    """

    def __init__(self, *, grace: int, reduction: float, epochs: int):
        self.reduction = reduction
        self.scores: dict[int, dict[int, float]] = {}  # rung's epoch -> trial number -> its score there
        epoch = float(grace)
        while round(epoch) < epochs:
            self.scores[round(epoch)] = {}
            epoch *= reduction

    def judge(self, number: int, epoch: int, score: float) -> str | None:
        """Enter a score; return why the trial should stop, or None. Only the epoch of a rung decides anything."""
        rung = self.scores.get(epoch)
        if rung is None or number in rung:
            return None
        others = list(rung.values())
        rung[number] = score
        if not others:
            return None
        cutoff = float(np.percentile(others, (1 - 1 / self.reduction) * 100))
        if score >= cutoff:
            return None
        return f"ASHA stopped it at epoch {epoch}: macro F1 {score:.3f} is below the cutoff {cutoff:.3f} of {len(others)} trials"


class Asha(FIFOScheduler):
    """Ray's scheduler over `Rungs`; `reasons` says in plain words why each stopped trial was stopped."""

    def __init__(self, rungs: Rungs):
        super().__init__()
        self.rungs = rungs
        self.reasons: dict[int, str] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if METRIC not in result:
            return TrialScheduler.CONTINUE
        reason = self.rungs.judge(result["number"], result["epoch"], result[METRIC])
        if reason and not result["last"]:
            self.reasons[result["number"]] = reason
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE


class SoftStop(tune.Stopper):
    """Ends the search between two reports: at the time budget's end, or when Ctrl-C asks."""

    def __init__(self, budget: float | None):
        """
        Args:
            budget: seconds from now, or None for no end.
        """
        self.deadline = None if budget is None else monotonic() + budget
        self.reason: str | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.reason is None and self.deadline is not None and monotonic() > self.deadline:
            self.reason = "time budget"
        return self.reason is not None

    def listen(self) -> None:
        """Take Ctrl-C as a wish to stop; the second time it ends the process at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.reason = "Ctrl-C"

        signal.signal(signal.SIGINT, ask)
