"""Which weights stay on disk during a run: those of its best trials, and of running ones."""

from trainables.metrics import Metric
from trainables.record import MODEL, trial_folder
from trainables.storage import Folder


class Retention:
    """Keeps the weights of the `keep` best ended trials; predictions and reports of all stay."""

    def __init__(self, run: Folder, keep: int, metric: Metric):
        self._run = run
        self._keep = keep
        self._metric = metric
        self._kept: list[tuple[float, int]] = []  # best first, ties to the earlier trial; the score is turned so that lower is better

    def ended(self, number: int, score: float) -> None:
        """Take an ended trial in; the worst beyond `keep` loses its weights."""
        self._kept = sorted([*self._kept, (-self._metric.sign * score, number)])
        for _, worst in self._kept[self._keep :]:
            (trial_folder(self._run, worst) / MODEL).unlink(missing_ok=True)
        del self._kept[self._keep :]
