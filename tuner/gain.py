"""What the best trial of a search gains over the baseline, on the images that validate."""

from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any

from analysis.evaluation.uncertainty import Gain, paired_gain
from trainables.baseline import FIRST, baseline_of, is_baseline
from trainables.data.training import Data
from trainables.record import BASELINE, DAMAGE, Record, read_predictions, read_record, trial_folder, write_json
from trainables.seeding import generator
from trainables.validation import evidence_of
from tuner.board import Row
from tuner.prepare import Plan

EVERY = 5.0  # seconds between two computations; each draws a thousand times from the groups that validate


def gain_over(baseline: Record, best: Record, data: Data, seed: int) -> Gain:
    """What the best trial gains on the validation groups."""
    without, reached = (evidence_of([(one.config, read_predictions(one.folder))], data.images, data.split) for one in (baseline, best))
    return paired_gain(reached, without, generator(seed, "bootstrap"))


def as_found(plan: Plan, baseline: Record, best: Record | None = None, gain: Gain | None = None) -> dict[str, Any]:
    """What baseline.json holds."""
    found: dict[str, Any] = {"trial": f"{plan.run.name}/{baseline.number}", "state": baseline.result.state, "metric": plan.settings.metric}
    if best is None or gain is None:
        return found
    scores = {"valid_score": baseline.best["score"], "best": f"{plan.run.name}/{best.number}", "best_score": best.best["score"]}
    return {**found, **scores, **gain.plain()}


class GainSoFar:
    """What the best trial so far gains over the baseline, computed beside the search and kept in baseline.json."""

    def __init__(self, plan: Plan, data: Data):
        self._plan, self._data = plan, data
        self._values = baseline_of(plan.space)
        self._known: tuple[float | None, ...] = ()
        self._began = -EVERY
        self._at_work: Thread | None = None

    def update(self, best: Row | None, baseline: Row | None) -> None:
        """Begin to compute it, where that is not being done and either has a better epoch than before."""
        if best is None or baseline is None or baseline.best is None or (self._at_work and self._at_work.is_alive()):
            return
        compared = best.number, best.best, baseline.best
        if compared != self._known and monotonic() - self._began > EVERY:
            self._known, self._began = compared, monotonic()
            self._at_work = Thread(target=self._compute, args=(best.number,), name="gain over the baseline", daemon=True)
            self._at_work.start()

    def wait(self) -> None:
        """Until nothing is computed any more."""
        if self._at_work:
            self._at_work.join()

    def _compute(self, number: int) -> None:
        # A record that is read while its trial writes it, a full disk: the next best trial, or the summary, does it again.
        with suppress(*DAMAGE):
            baseline = read_record(trial_folder(self._plan.run, FIRST))
            best = read_record(trial_folder(self._plan.run, number))
            if is_baseline(baseline.config, self._values) and baseline.best and best.best:
                gain = gain_over(baseline, best, self._data, self._plan.seed)
                write_json(self._plan.run / BASELINE, as_found(self._plan, baseline, best, gain))
