"""The metrics that a run can be searched, compared and answered by, by the names that scikit-learn gives them.

A metric is a value: searcher, pruner, schedule, best epoch, retention and analysis take the one of their run, its direction included.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from trainables.data.targets import Kind, Scheme
from trainables.metrics.asked import ASKED, bound, parts_of, unbound
from trainables.metrics.labels import LABEL_METRICS
from trainables.metrics.metric import Metric
from trainables.metrics.numbers import NUMBER_METRICS
from trainables.metrics.probabilities import PROBABILITY_METRICS
from trainables.metrics.tags import TAG_METRICS
from trainables.registry import ConfigError, Mistake, Registry, RegistryError, choose

DEFAULT = "f1_macro"
DEFAULTS: Mapping[Kind, str] = {"classes": DEFAULT, "tags": "average_precision", "number": "neg_mean_absolute_error"}


class Metrics(Registry[Metric]):
    """Those of one kind of target."""

    def __init__(self, kind: Kind, metrics: Iterable[Metric]):
        self._target = kind
        super().__init__({metric.name: metric for metric in metrics}, Metric)

    def __setitem__(self, key: str, item: Metric) -> None:
        if isinstance(item, Metric) and item.target != self._target:
            raise RegistryError(f"{key!r} scores {item.target}; add it to METRICS_OF[{item.target!r}]")
        super().__setitem__(key, item)


METRICS = Metrics("classes", (*LABEL_METRICS, *PROBABILITY_METRICS))
METRICS_OF: Mapping[Kind, Metrics] = {
    "classes": METRICS,
    "tags": Metrics("tags", TAG_METRICS),
    "number": Metrics("number", NUMBER_METRICS),
}
AUTO = "auto"  # the default of the first kind of target that there is


class _ByName(Mapping[str, Metric]):
    """The metrics of all kinds of target, those that are added later too; of those that ask for more, all that does not depend on it."""

    def __getitem__(self, name: str) -> Metric:
        if parts_of(name)[0] in ASKED:
            return unbound(name)
        for metrics in METRICS_OF.values():
            if name in metrics:
                return metrics[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*(name for metrics in METRICS_OF.values() for name in metrics), *ASKED]))

    def __len__(self) -> int:
        return len(list(iter(self)))


# By name the one of the first kind that has it: for all that does not depend on the kind, such as title and direction.
BY_NAME = _ByName()


def metric_of(name: str, scheme: Scheme, path: str = "run/metric") -> Metric:
    """The metric of this name, or AUTO, for the first kind of target of a scheme that has one.

    Raises: ConfigError naming those that there are.
    """
    if parts_of(name)[0] in ASKED:
        return bound(name, scheme, path)
    if name == AUTO:
        return METRICS_OF[scheme.kinds[0]][DEFAULTS[scheme.kinds[0]]]
    for kind in scheme.kinds:
        if name in METRICS_OF[kind]:
            return METRICS_OF[kind][name]
    known = {one: metric for kind in scheme.kinds for one, metric in METRICS_OF[kind].items()}
    return choose(known, name, path)


def target_scores(metric: Metric, scheme: Scheme, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The score of each target alone, from the truth and an answer (n, columns) to targets of the metric's kind.

    The labels of one of several Classes are those of the most probable joint class.
    """
    if metric.target != "classes":
        return {name: metric.score(truth, probabilities) for name in scheme.names}
    labels = scheme.split(probabilities.argmax(axis=1)).T if metric.takes == "labels" else [None] * len(scheme.targets)
    return {
        target.name: metric.of_prediction(
            true, scheme.marginal((target.name,), probabilities) if answer is None else answer, len(target.values)
        )
        for target, true, answer in zip(scheme.targets, scheme.split(truth).T, labels, strict=True)
    }


def others_of(names: Sequence[str], metric: Metric, scheme: Scheme) -> list[Metric]:
    """The metrics that are reported beside the one that decides (run/also).

    Raises: ConfigError naming each that does not exist for these targets, is of another kind, or is there already.
    """
    found: list[Metric] = []
    mistakes: list[Mistake] = []
    for place, name in enumerate(names):
        path = f"run/also/{place}"
        try:
            other = metric_of(name, scheme, path)
        except ConfigError as error:
            mistakes += error.mistakes
            continue
        if other.target != metric.target:
            mistakes.append(Mistake(path, f"{name} scores {other.target}, and run/metric, {metric.name}, {metric.target}; leave it out"))
        elif other.name in (metric.name, *(one.name for one in found)):
            mistakes.append(Mistake(path, f"{name} is shown already; leave it out"))
        found.append(other)
    if mistakes:
        raise ConfigError(mistakes)
    return found


def accuracy_of(metric: Metric, truth: np.ndarray, answer: np.ndarray) -> float | None:
    """The accuracy of an answer (n, columns) to targets of the metric's kind; None where there is none, as of numbers."""
    accuracy = METRICS_OF[metric.target].get("accuracy")
    return accuracy.score(truth, answer) if accuracy else None


def of_labels(metric: Metric) -> Metric:
    """The metric where it takes labels, else the default one: for answers that have no probabilities."""
    return metric if metric.takes == "labels" else METRICS[DEFAULT]


def probabilities_missing(metric: Metric, setting: str, name: str) -> str | None:
    """Why a metric cannot score what `setting` makes of `name`, a loss or a vote whose probabilities mean nothing; None where it can."""
    if metric.takes == "labels":
        return None
    others = ", ".join(other.name for other in METRICS.values() if other.takes == "labels")
    return (
        f"{setting} is {name!r}, whose probabilities mean nothing, and run/metric {metric.name} scores probabilities; "
        f"take another, or score labels: {others}"
    )
