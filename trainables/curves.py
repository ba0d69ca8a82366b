"""A trial's curves and settings as TensorBoard reads them."""

import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, scalar

from search_spaces.schema import flat
from trainables.config import TrialConfig
from trainables.record import EpochReport
from trainables.storage import Folder, write_atomically


class Curves:
    """The event file of one attempt at a trial. Written in the trial's own thread, so that a full disk is an error there."""

    def __init__(self, trial: Folder, config: TrialConfig, attempt: int, searched: Collection[str] = ()):
        """
        Args:
            trial: its folder; to one in an object store, which cannot append, the file is copied after every epoch.
            attempt: tells the files of attempts apart that begin in one second.
            searched: paths of the settings that the HParams page lists; which of them a trial has may depend on the others.
        """
        # TensorBoard calls a run by the folders that lead to its file: `12/efficientnet_b0`.
        folder = trial / re.sub(r"[^\w.-]", "_", config.model.backbone)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._metric = config.metric
        self._scratch = None if isinstance(folder, Path) else TemporaryDirectory()
        local = Path(self._scratch.name) if self._scratch else folder
        self._writer = EventsWriter(str(local / "events"), filename_suffix=f".{attempt}")
        # The HParams page reads the settings here and takes the last value of `best/<metric>` as the trial's result. Both are in the
        # file from the first epoch on, so a stopped trial and a killed one are on the page with their best epoch.
        experiment, session, _ = hparams(_settings(config, searched), {f"best/{config.metric}": None})
        for summary in (experiment, session):
            self._add(summary, step=0)

    def add(self, report: EpochReport, best: float | None) -> None:
        """Add an epoch's values; `best` is the best score so far. Without a validation split there are no scores."""
        scores = {self._metric: report.score, f"best/{self._metric}": best, "accuracy": report.accuracy}
        shown = {
            **(scores if report.score is not None else {}),
            "train_loss": report.train_loss,
            "learning_rate": report.lr,
            "images_per_second": report.images_per_second,
            **{f"{self._metric}/{name}": score for name, score in report.target_scores.items()},
        }
        for tag, value in shown.items():
            if value is not None:
                self._add(scalar(tag, value), report.epoch)
        self._writer.flush()
        if self._scratch:
            for file in Path(self._scratch.name).iterdir():
                write_atomically(self._folder / file.name, file.read_bytes())

    def close(self) -> None:
        # What a full disk refused is refused again.
        with suppress(OSError):
            self._writer.close()
        if self._scratch:
            self._scratch.cleanup()

    def _add(self, summary: Summary, step: int) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def _settings(config: TrialConfig, paths: Collection[str]) -> dict[str, int | float | str]:
    """The settings at these paths; what is no number or text, as text."""
    values = {path: value for path, value in flat(config.values()).items() if path in paths}
    return {path: value if isinstance(value, (int, float, str)) else str(value) for path, value in values.items()}
