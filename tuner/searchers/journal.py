"""A run as a journal file of Optuna's, which its dashboard shows live: `optuna-dashboard RUN/optuna-journal.log`.

It is made of the records whenever a search begins, and nothing reads it back.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from search_spaces.schema import Space, as_optuna
from trainables.metrics import Metric
from trainables.record import Record
from tuner.searchers.sampling import distribution, quiet_study
from tuner.searchers.study import frozen_trials

JOURNAL = "optuna-journal.log"
STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "interrupted": TrialState.PRUNED, "failed": TrialState.FAIL}


class Journal:
    """Writes what happens in a search, as it happens. A trial has our number as its attribute `number`."""

    def __init__(self, run: Path, space: Space, metric: Metric, earlier: Iterable[Record]):
        """
        Args:
            earlier: trials that will not run again.
        """
        for name in (JOURNAL, f"{JOURNAL}.lock"):  # the lock of a search that was killed in mid-write would be waited for
            (run / name).unlink(missing_ok=True)
        self._domains = {parameter.path: parameter.domain for parameter in space.parameters}
        self._space = space
        self._storage = JournalStorage(JournalFileBackend(str(run / JOURNAL)))
        study = quiet_study(optuna.samplers.RandomSampler(), metric, run.name, self._storage)
        study.add_trials(frozen_trials(earlier, space))
        self._study = self._storage.get_study_id_from_name(run.name)
        self._running: dict[int, int] = {}  # Optuna's id, by our number

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles whoever holds it for a resume of its own."""
        return {}

    def started(self, number: int, values: Mapping[str, Any], curve: Mapping[int, float | None]) -> None:
        """A trial starts, or starts again.

        Args:
            values: nested, of its configuration.
            curve: score by epoch, as far as it came in an earlier command.
        """
        if number in self._running:
            return
        drawn = {path: value for path, value in self._space.drawn(values).items() if self._domains[path].holds(value)}
        trial = create_trial(
            state=TrialState.RUNNING,
            params={path: as_optuna(value) for path, value in drawn.items()},
            distributions={path: distribution(self._domains[path]) for path in drawn},
            intermediate_values={epoch: score for epoch, score in curve.items() if score is not None},
            user_attrs={"number": number, "backbone": values["model"]["backbone"]},
        )
        self._running[number] = self._storage.create_new_trial(self._study, template_trial=trial)

    def reported(self, number: int, epoch: int, score: float | None) -> None:
        """A trial has trained another epoch."""
        if number in self._running and score is not None:
            self._storage.set_trial_intermediate_value(self._running[number], epoch, score)

    def ended(self, number: int, state: str, best: float | None) -> None:
        """A trial has ended."""
        trial = self._running.pop(number, None)
        if trial is not None:
            done = TrialState.FAIL if best is None else STATES[state]
            self._storage.set_trial_state_values(trial, done, [best] if best is not None and done is TrialState.COMPLETE else None)
