"""The metrics that a run can be searched, compared and answered by, by the names that scikit-learn gives them.

A metric is a value: searcher, pruner, schedule, best epoch, retention and analysis take the one of their run, its direction included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.data.labels import Scheme
from trainables.metrics.f1 import confusion, macro_f1

DEFAULT = "f1_macro"


@dataclass(frozen=True)
class Metric:
    """How good predictions of classes are."""

    name: str  # as in METRICS, scikit-learn's where it has one
    title: str  # the plain word of tables
    direction: Literal["maximize", "minimize"] = "maximize"

    @property
    def sign(self) -> int:
        """What a score is multiplied by to be better where it is higher."""
        return 1 if self.direction == "maximize" else -1

    def score(self, truth: np.ndarray, probabilities: np.ndarray) -> float:
        """The score of probabilities (n, classes) for true classes (n,)."""
        classes = probabilities.shape[1]
        return float(macro_f1(confusion(truth, probabilities.argmax(axis=1), classes)))


def target_scores(metric: Metric, scheme: Scheme, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The score of each target alone, from true joint classes (n,) and joint probabilities (n, classes)."""
    predicted = scheme.split(probabilities.argmax(axis=1))
    return {
        target.name: float(macro_f1(confusion(true, answer, len(target.values))))
        for target, true, answer in zip(scheme.attributes, scheme.split(truth).T, predicted.T, strict=True)
    }


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (Metric("f1_macro", "macro F1"),)}
