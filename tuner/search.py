"""The searcher: Optuna's TPE behind Ray Tune's interface, told the truth about how trials end."""

from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search_spaces.schema import Space
from trainables.metrics import METRIC, MODE


def random_draws(space: Space, fixed: dict[str, Any], *, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Nested values of configurations drawn at random, those of the space's `start` first."""
    study = _quiet_study(optuna.samplers.RandomSampler(seed=seed), space)
    for _ in range(count):
        yield space(study.ask()) | fixed


class OptunaSearcher(Searcher):
    """Proposes configurations by multivariate TPE, modelling each branch of a conditional space by itself.

    Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped is complete, and leaves failed ones running for ever;
    here a finished trial counts with its best epoch, a stopped one as pruned with what it reached, a failed one as failed.

    Source: Watanabe, Tree-Structured Parzen Estimator, 2023 (arXiv 2304.11127); Bergstra et al., NeurIPS 2011.
    """

    def __init__(self, space: Space, fixed: dict[str, Any], *, seed: int, trials: int, slots: int):
        """
        Args:
            fixed: values that the run adds to every configuration (epochs, seed).
            trials: planned number; small searches start modelling after fewer random trials than Optuna's 10.
            slots: trials that run at a time; none is proposed ahead, so each proposal knows all that ended before it starts.
        """
        super().__init__(metric=METRIC, mode=MODE)
        self._space = space
        self._fixed = fixed
        self._slots = slots
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=min(10, max(4, trials // 3))
        )
        self._study = _quiet_study(sampler, space)
        self._running: dict[str, optuna.Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._running) >= self._slots:
            return None
        trial = self._study.ask()
        self._running[trial_id] = trial
        return {"number": trial.number, "values": self._space(trial) | self._fixed}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if METRIC in result:
            self._running[trial_id].report(result[METRIC], step=result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._running.pop(trial_id)
        if error or not result or "failed" in result:
            self._study.tell(trial, state=TrialState.FAIL)
        elif result["last"]:
            self._study.tell(trial, result["best"])
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the truth, and the study can be made from them."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read, see `save`."""


def _quiet_study(sampler: optuna.samplers.BaseSampler, space: Space) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for start in space.start_trials():
        study.enqueue_trial(start)
    return study
