"""When a search has nothing more to expect: what further trials are expected to gain is less than the noise of the best score.

A search that picks the best of many noisy scores gains for ever, on paper: by its noise. Below the standard error of the best score a gain
cannot be told from that.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray import tune

from trainables.metrics import Metric
from trainables.metrics.evidence import Evidence
from trainables.record import DAMAGE, read_predictions, read_record, trial_folder
from trainables.trial import Job
from trainables.validation import evidence_of
from tuner.board import Board
from tuner.stoppers.soft_stop import SoftStop

FEWEST = 10  # trials before which nothing is known of what others would gain


@dataclass(frozen=True)
class Expected:
    """What further trials are expected to gain over the best one, at most."""

    trials: int
    gain: float


def expected(scores: Sequence[float], patience: int) -> Expected | None:
    """What is to be expected of as many trials as the last half of all, or of `patience` ones where these are more; None of too few.

    The larger of two figures. One is what the last ones gained, as many of them: a searcher that learns goes on for a while as it did.
    The other is what as many trials add to the best of the others, as the mean over all orders of the trials: were they drawn alike,
    further ones would add no more, as expected maxima rise ever more slowly.

    Args:
        scores: of the trials in their order, better where higher.
    """
    if len(scores) < max(FEWEST, 2 * patience):
        return None
    further = max(patience, len(scores) // 2)
    earlier, best_first = len(scores) - further, sorted(scores, reverse=True)
    # How probable it is that the n-th best is the best of the earlier ones.
    chance, others = 1.0, 0.0
    for place, score in enumerate(best_first[: further + 1]):
        own = earlier / (len(scores) - place)
        others += chance * own * score
        chance *= 1 - own
    return Expected(further, best_first[0] - min(others, max(scores[:earlier])))


class Patience(tune.Callback):
    """Ends a search softly, like a time budget, when nothing more is to be expected."""

    def __init__(self, patience: int, job: Job, board: Board, soft_stop: SoftStop, probes: Sequence[int] = ()):
        """
        Args:
            patience: see `expected`; 0: it never ends.
            probes: numbers of the trials before the search.
        """
        self._patience = patience
        self._job = job
        self._board = board
        self._soft_stop = soft_stop
        self._probes = {*probes}
        self._ended = 0  # in this command: one that asks for more trials gets some
        self._noise: dict[int, float] = {}  # by trial

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a resume of its own."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended += 1
        metric = self._board.metric
        if not self._patience or self._ended < self._patience:
            return
        alike: dict[str, dict[int, float]] = {}
        for number, row in sorted(self._board.rows.items()):
            if row.state != "running" and row.best is not None:
                alike.setdefault(row.predicts, {})[number] = metric.sign * row.best
        # Where trials predict different targets, as long as anything is to be expected for one of these.
        found = [self._expected(ended) for ended in alike.values()]
        if found and all(one and one[0].gain < one[1] for one in found):
            gain, noise = max((one for one in found if one), key=lambda one: one[0].gain - one[1])
            self._soft_stop.ask(words(gain, noise, metric), 0)

    def _expected(self, ended: Mapping[int, float]) -> tuple[Expected, float] | None:
        """What is expected of further trials that predict what these do, and the noise of the best score; None where either is unknown.

        Args:
            ended: scores by number, better where higher.
        """
        # What the probes reached has to be surpassed.
        floor = max((score for number, score in ended.items() if number in self._probes), default=-np.inf)
        scores = [max(floor, score) for number, score in ended.items() if number not in self._probes]
        found = expected(scores, self._patience)
        noise = self._noise_of(max(ended, key=ended.__getitem__)) if found else None
        return (found, noise) if found and noise is not None else None

    def _noise_of(self, number: int) -> float | None:
        """The standard error, over groups, of a trial's score; None where its prediction cannot be read."""
        if number not in self._noise:
            folder = trial_folder(self._job.run, number)
            with suppress(*DAMAGE):
                config = read_record(folder).config
                data = self._job.of_fold(config.data.fold).data
                self._noise[number] = standard_error(evidence_of([(config, read_predictions(folder))], data.images, data.split))
        return self._noise.get(number)


def standard_error(found: Evidence) -> float:
    """Of the score, over groups."""
    return float(np.sqrt((found.influence() ** 2).sum()))


def words(found: Expected, noise: float, metric: Metric) -> str:
    """Why the search ends."""
    return (
        f"run/patience: {found.trials} more trials are expected to gain at most {found.gain:.4f} {metric.title}, less than the standard "
        f"error of the best score, {noise:.4f}"
    )
