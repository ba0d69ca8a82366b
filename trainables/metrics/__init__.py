"""The metrics that a run can be searched, compared and answered by, by the names that scikit-learn gives them.

A metric is a value: searcher, pruner, schedule, best epoch, retention and analysis take the one of their run, its direction included.
"""

from collections.abc import Mapping

import numpy as np

from trainables.data.labels import Scheme
from trainables.metrics.labels import LABEL_METRICS
from trainables.metrics.metric import Metric
from trainables.metrics.probabilities import PROBABILITY_METRICS

DEFAULT = "f1_macro"
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (*LABEL_METRICS, *PROBABILITY_METRICS)}


def target_scores(metric: Metric, scheme: Scheme, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The score of each target alone, from true joint classes (n,) and joint probabilities (n, classes).

    The labels of a target are those of the most probable joint class.
    """
    labels = scheme.split(probabilities.argmax(axis=1)).T if metric.wants == "labels" else [None] * len(scheme.attributes)
    return {
        target.name: metric.of_prediction(
            true, scheme.marginal((target.name,), probabilities) if answer is None else answer, len(target.values)
        )
        for target, true, answer in zip(scheme.attributes, scheme.split(truth).T, labels, strict=True)
    }


def of_labels(metric: Metric) -> Metric:
    """The metric where it takes labels, else the default one: for answers that have no probabilities."""
    return metric if metric.wants == "labels" else METRICS[DEFAULT]


def probabilities_missing(metric: Metric, setting: str, name: str) -> str | None:
    """Why a metric cannot score what `setting` makes of `name`, a loss or a vote whose probabilities mean nothing; None where it can."""
    if metric.wants == "labels":
        return None
    others = ", ".join(other.name for other in METRICS.values() if other.wants == "labels")
    return (
        f"{setting} is {name!r}, whose probabilities mean nothing, and run/metric {metric.name} scores probabilities; "
        f"take another, or score labels: {others}"
    )
