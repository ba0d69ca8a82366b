"""What the driver does when a trial starts, reports or ends: update the board, the final state in the record, retention and fidelity."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from time import monotonic, time
from typing import Any

from ray import tune

from search_spaces.schema import Space
from trainables.baseline import FIRST
from trainables.record import Decision, Record, State, end_record, read_decisions, trial_folder, write_decisions, write_json
from trainables.storage import UNWRITABLE, Folder, size_below
from tuner import fidelity
from tuner.board import Board, Row, differs
from tuner.gain import GainSoFar
from tuner.live import Moment, Pulse, Running
from tuner.requests import Inbox
from tuner.retention import Retention
from tuner.searchers.journal import Journal
from tuner.stoppers.pruner import Pruner
from tuner.stoppers.soft_stop import SoftStop

SIZING = 30.0  # seconds between two measurements of the run's size; a large run has many files


class Driver(tune.Callback):
    """Called by Tune at every event, in its own thread."""

    def __init__(
        self,
        run: Folder,
        *,
        space: Space,
        board: Board,
        pruner: Pruner,
        soft_stop: SoftStop,
        inbox: Inbox,
        retention: Retention,
        show: Callable[[Row], None],
        gain: GainSoFar | None = None,
        predicts: Callable[[Mapping[str, Any]], str] = lambda values: "",
    ):
        """
        Args:
            show: called with the row of every trial that started, reported or ended.
            gain: keeps what the best trial gains over the baseline.
            predicts: what a trial of these settings predicts.
        """
        self._run = run
        self._space = space
        self._board = board
        self._pruner = pruner
        self._soft_stop = soft_stop
        self._inbox = inbox
        inbox.over = self._is_over
        self._retention = retention
        self._show = show
        self._gain = gain
        self._predicts = predicts
        self.journal: Journal | None = None  # for Optuna's dashboard
        self._curves: dict[int, dict[int, float]] = {}  # trial -> epoch -> score
        self._ran_to_the_end: set[int] = set()
        self._backbones: dict[int, str] = {}
        self._waiting: dict[int, Row] = {}
        self._sized = -SIZING
        self._places: dict[int, str] = {}  # trial -> machine and process that train it
        self._since: dict[int, float] = {}  # trial -> when it started here, in seconds since 1970
        self._shown = Pulse(run)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a resume of its own, and ours reads the records."""
        return {}

    def know(self, kept: Iterable[Record], going_on: Iterable[Record], probes: Iterable[Record] = ()) -> None:
        """Take in the trials of earlier commands, and the probes before the search."""
        for record in probes:
            row = self._board.put(self._row(record))
            if row.best is not None and record.has_model:
                self._retention.ended(record.number, row.best, row.predicts)
        for record in kept:
            number, state = record.number, record.result.state
            row = self._board.put(self._row(record))
            if state == "finished":
                self._ran_to_the_end.add(number)
            if row.best is not None and state != "interrupted" and record.has_model:
                self._retention.ended(number, row.best, row.predicts)
        # They have a row when they start again.
        self._waiting = {record.number: self._row(record) for record in going_on}
        if self._ran_to_the_end:
            with self._room():
                self._note()

    def _row(self, record: Record) -> Row:
        number, done = record.number, len(record.reports)
        self._curves[number] = {report["epoch"]: report["score"] for report in record.reports}
        self._backbones[number] = record.config.model.backbone
        last = record.reports[-1]["score"] if done else None
        best = record.best["score"] if record.best else None
        values = record.config.values()
        words, predicts = differs(self._space, values), self._predicts(values)
        return Row(number, words, state=record.result.state, epoch=done, score=last, best=best, earlier=done, predicts=predicts)

    def decided(self, number: int, decision: Decision) -> None:
        """Write the pruner's decision on a trial into its record, before it takes effect."""
        folder = trial_folder(self._run, number)
        with self._room():
            write_decisions(folder, [*read_decisions(folder), decision])

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._inbox.look()
        with self._room():
            self._shown.show(self._moment)
        if self._gain:
            self._gain.update(self._board.best_like(FIRST), self._board.rows.get(FIRST))

    def _moment(self) -> Moment:
        rows = [row for row in self._board.rows.values() if row.state == "running"]
        return Moment(
            tuple(Running(row.number, row.epoch, self._places.get(row.number, ""), self._since.get(row.number, time())) for row in rows),
            seconds_left=self._board.seconds_left(),
            words=self._board.words(),
            notes=tuple(self._board.notes),
        )

    def leave(self) -> None:
        """When the last trial has ended: nothing runs any more, and what was asked for has been done, or waits."""
        if self._gain:
            self._gain.wait()
        with self._room():
            self._inbox.end()
        self._shown.end()

    def _is_over(self, number: int) -> bool:
        # One that is interrupted may be resumed.
        return number in self._board.rows and self._board.rows[number].state not in ("running", "interrupted")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = self._seen(trial)
        self._backbones[number] = trial.config["values"]["model"]["backbone"]
        self._since[number] = time()
        if self.journal:
            with self._room():
                self.journal.started(number, trial.config["values"], self._curves.get(number, {}))
        self._show(self._board.update(number, state="running"))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "halt" in result:
            self._soft_stop.ask(result["halt"], 1, no_room=result["no_room"])
        if "epoch" not in result:
            return
        row = self._board.rows[result["number"]]
        self._places[row.number] = f"{result.get('hostname', '')}, process {result.get('pid', '')}"
        curve = self._curves.setdefault(row.number, {})
        if result["epoch"] in curve:
            # Trained again since its state was written last: no progress, and counted before.
            return
        # A trial that makes progress has all its retries again: over a long night several nodes may fail.
        trial.run_metadata.num_failures = 0
        curve[result["epoch"]] = result["score"]
        if self.journal:
            with self._room():
                self.journal.reported(row.number, result["epoch"], result["score"])
        self._show(
            self._board.update(
                row.number,
                epoch=result["epoch"],
                score=result["score"],
                best=result["best"],
                images=row.images + result["photos"],
                seconds=row.seconds + result["seconds"],
            )
        )
        if monotonic() - self._sized > SIZING:
            self._board.size, self._sized = size_below(self._run), monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        last = trial.last_result or {}
        forget_statistics(trial)
        if "failed" in last:
            self._end(number, "failed")
        elif number in self._pruner.reasons:
            self._close(number, "stopped", self._pruner.reasons[number])
        elif last.get("last"):
            self._ran_to_the_end.add(number)
            with self._room():
                self._note()
            self._end(number, "finished")
        else:
            self._close(number, "interrupted", self._why())

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self.close_running()

    def close_running(self) -> None:
        """Record every trial that still runs as interrupted; to be called when its process writes no more."""
        # Tune reports no trial that a soft stop ends, and only now its process, which may have been in mid-epoch, is gone.
        for number in [row.number for row in self._board.rows.values() if row.state == "running"]:
            self._close(number, "interrupted", self._why())

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        words = str(trial.get_error() or "its process died").strip().splitlines()
        number = self._seen(trial)
        with self._room():
            end_record(trial_folder(self._run, number), "failed", words[-1], "crash")
        self._end(number, "failed")

    def _seen(self, trial: Any) -> int:
        """The trial's number, with a row for it on the board. One whose process never came up ends without having started."""
        number = trial.config["number"]
        if number not in self._board.rows:
            values = trial.config["values"]
            new = Row(number, differs(self._space, values), predicts=self._predicts(values))
            self._board.put(self._waiting.pop(number, None) or new)
        return number

    def _why(self) -> str:
        return f"the search was ended by {self._soft_stop.reason or 'an error'}"

    def _close(self, number: int, state: State, reason: str) -> None:
        with self._room():
            end_record(trial_folder(self._run, number), state, reason)
        self._end(number, state)

    def _end(self, number: int, state: str) -> None:
        row = self._board.update(number, state=state)
        if self.journal:
            with self._room():
                self.journal.ended(number, state, row.best)
        # The weights of an interrupted trial stay beside what it needs to resume.
        if row.best is not None and state != "interrupted":
            self._retention.ended(number, row.best, row.predicts)
        self._show(row)

    def _note(self) -> None:
        """Measure how well the early scores of the trials that ran to the end predict their last ones, at the pruner's rungs."""
        rungs = self._pruner.stopper.rungs
        if not rungs:
            return

        def curves_of(numbers: Iterable[int]) -> dict[int, list[float]]:
            return {number: [self._curves[number][epoch] for epoch in sorted(self._curves[number])] for number in numbers}

        curves = curves_of(self._ran_to_the_end)
        stopped = curves_of(number for number, row in self._board.rows.items() if row.state == "stopped" and number in self._curves)
        found = fidelity.measure(curves, self._backbones, rungs, stopped)
        warning = fidelity.warning(curves, self._backbones, rungs, stopped)
        self._board.notes = [words for words in (fidelity.line(found), warning) if words]
        write_json(self._run / "fidelity.json", {"rungs": [asdict(entry) for entry in found]})

    @contextmanager
    def _room(self) -> Iterator[None]:
        """A full disk ends the search softly; what could not be written is found again when the search is resumed."""
        try:
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            self._soft_stop.ask(f"{self._run}: {error.strerror}", 1, no_room=error.errno != errno.EROFS)


def forget_statistics(trial: Any) -> None:
    """Drop what Tune keeps of every metric of an ended trial, some 40 KB: its scores are in its record."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
