"""The median rule: a trial whose best score so far is below the median of finished trials at the same epoch is stopped.

Source: Golovin et al., Google Vizier, KDD 2017; with the scores of the epoch itself in place of running means, as in Optuna's
MedianPruner.
"""

import numpy as np

from trainables.record import Decision
from trainables.registry import Count, setting
from tuner.stoppers.asha import halving_rungs
from tuner.stoppers.history import GraceSettings, History, Stopper, TrialReport

SAMPLED = 3.0  # it decides at every epoch; how well early scores predict is measured at some, each so many times the one before


class MedianSettings(GraceSettings):
    """Of the median rule."""

    startup: Count = setting("median: trials that finish before any is stopped", 5)


def median(settings: MedianSettings, epochs: int) -> Stopper:
    def decide(history: History, trial: TrialReport) -> Decision | None:
        if trial.epoch < settings.grace:
            return None
        finished = history.finished - {trial.number}
        others = [score for number, score in history.at(trial.epoch).items() if number in finished]
        cutoff = float(np.percentile(others, 50)) if others and len(finished) >= settings.startup else None
        best = max(trial.score, history.best(trial.number, trial.epoch))
        return Decision(trial.epoch, trial.score, len(others), cutoff, cutoff is None or best >= cutoff, "median")

    return Stopper("median", "The median rule", epochs, halving_rungs(settings.grace, SAMPLED, epochs), decide)
