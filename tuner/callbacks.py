"""What the driver does when a trial starts, reports or ends: keep the board, the records' last word, and the weights' retention."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from search_spaces.schema import Space
from trainables.record import end_record, trial_folder
from tuner.board import Board, Row, differs
from tuner.retention import Retention
from tuner.stopping import Asha, SoftStop


class Driver(tune.Callback):
    """Told by Tune of every event, in its own thread."""

    def __init__(
        self,
        run: Path,
        *,
        space: Space,
        board: Board,
        asha: Asha,
        soft_stop: SoftStop,
        retention: Retention,
        show: Callable[[Row], None],
    ):
        """
        Args:
            show: called with the row of every trial that started, reported or ended.
        """
        self._run = run
        self._space = space
        self._board = board
        self._asha = asha
        self._soft_stop = soft_stop
        self._retention = retention
        self._show = show

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a resume of its own, and ours goes by the records."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        row = self._board.rows.get(number) or Row(number, differs(self._space, trial.config["values"]))
        self._board.rows[number] = row
        self._show(row)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "failed" in result:
            return
        row = self._board.rows[result["number"]]
        self._show(
            self._board.update(
                row.number,
                epoch=result["epoch"],
                score=result["macro_f1"],
                best=result["best"],
                photos=row.photos + result["photos"],
                seconds=row.seconds + result["seconds"],
            )
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        last = trial.last_result or {}
        if "failed" in last:
            state = "failed"
        elif number in self._asha.reasons:
            state = "stopped"
            end_record(trial_folder(self._run, number), "stopped", self._asha.reasons[number])
        else:
            state = "finished"
        self._end(number, state)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        # Tune tells of no trial that a soft stop ends. Only now its process, which may have been in mid-epoch, writes no more.
        for number in [row.number for row in self._board.rows.values() if row.state == "running"]:
            reason = f"the search was ended by {self._soft_stop.reason or 'an error'}"
            end_record(trial_folder(self._run, number), "interrupted", reason)
            self._end(number, "interrupted")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        words = str(trial.get_error() or "its process died").strip().splitlines()
        end_record(trial_folder(self._run, number), "failed", words[-1])
        self._end(number, "failed")

    def _end(self, number: int, state: str) -> None:
        row = self._board.update(number, state=state)
        if row.best is not None:
            self._retention.ended(number, row.best)
        self._show(row)
