"""Which weights stay on disk during a run: those of its best trials for what they predict, and of running ones."""

from trainables.metrics import Metric
from trainables.record import MODEL, trial_folder
from trainables.storage import Folder


class Retention:
    """Keeps the weights of the `keep` best ended trials that predict the same; predictions and reports of all stay."""

    def __init__(self, run: Folder, keep: int, metric: Metric):
        self._run = run
        self._keep = keep
        self._metric = metric
        # By what they predict, best first, ties to the earlier trial; the score is turned so that lower is better.
        self._kept: dict[str, list[tuple[float, int]]] = {}

    def ended(self, number: int, score: float, predicts: str = "") -> None:
        """Take an ended trial in; the worst beyond `keep` loses its weights."""
        best_first = sorted([*self._kept.get(predicts, ()), (-self._metric.sign * score, number)])
        for _, worst in best_first[self._keep :]:
            (trial_folder(self._run, worst) / MODEL).unlink(missing_ok=True)
        self._kept[predicts] = best_first[: self._keep]
