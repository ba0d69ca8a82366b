"""What an answer is worth part by part: for each target, each class, and the images of each group of people that the labels tell apart.

Source: Mitchell et al., Model Cards for Model Reporting, FAT* 2019, whose cards ask for scores by factor beside the one of all images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.scoring import fifths
from analysis.members.trials import Sample
from trainables.data.targets import Kind, Scheme
from trainables.metrics import METRICS_OF, Metric
from trainables.metrics.evidence import Evidence, Interval, evidence, label_evidence
from trainables.metrics.metric import TAGGED
from trainables.seeding import generator

if TYPE_CHECKING:
    import pandas as pd

FEW = 10  # groups; of fewer an interval by resampling them means nothing
EACH: dict[Kind, str] = {"classes": "accuracy", "tags": "accuracy", "number": "neg_mean_absolute_error"}  # of any part of the images
EMPTY = (np.nan, np.nan)
F1 = METRICS_OF["tags"]["f1_micro"]  # of one class or tag: whether an image has it is a tag of its own


@dataclass(frozen=True)
class PartScore:
    """The score of one part."""

    target: str  # empty: of all images
    value: str  # of the target, which these images have; empty: whatever they have
    photos: int
    people: int  # groups
    score: float
    interval: Interval | None  # 95 %, by the bootstrap over groups; None of fewer than FEW, and of groups that are all alike


def by_target(answer: np.ndarray, sample: Sample, scheme: Scheme, metric: Metric, seed: int) -> list[PartScore]:
    """The score of each target alone, as `target_scores` has it, from an answer (n, columns) to all of them."""
    truth, groups = sample.truth(scheme), sample.groups
    if metric.target != "classes":
        return [_scored(name, "", evidence(metric, truth, answer, groups), sample, seed) for name in scheme.names]
    found = []
    for target, true, labels in zip(scheme.targets, scheme.split(truth).T, scheme.split(answer.argmax(axis=1)).T, strict=True):
        if metric.takes == "labels":
            own = label_evidence(metric, true, labels, groups, len(target.values))
        else:
            own = evidence(metric, true, scheme.marginal((target.name,), answer), groups)
        found.append(_scored(target.name, "", own, sample, seed))
    return found


def by_value(answer: np.ndarray, sample: Sample, scheme: Scheme, seed: int) -> list[PartScore]:
    """How an answer (n, columns) does, by the metric of EACH, on all images, and on those of each class and each tag that an image may
    have. None where there is one target alone: what it is worth class by class has been said then."""
    if len(sample.scheme.targets) < 2:
        return []
    metric, truth = METRICS_OF[scheme.kind][EACH[scheme.kind]], sample.truth(scheme)
    inside = {("", ""): np.ones(len(sample.ids), dtype=bool)}
    for target in sample.scheme.targets:
        own = sample.truth(sample.scheme.part((target.name,)))
        for number, value in enumerate(target.values):
            inside[target.name, value] = own[:, number] if target.kind == "tags" else own == number
    return [
        _scored(*of, evidence(metric, truth[rows], answer[rows], sample.groups[rows]), sample.take(np.flatnonzero(rows)), seed)
        for of, rows in inside.items()
        if rows.any()
    ]


def class_intervals(answer: np.ndarray, sample: Sample, scheme: Scheme, seed: int) -> "pd.DataFrame":
    """The 95 % intervals that belong to the rows of `class_table`: of F1, of a number of the mean absolute error. Empty where fewer than
    FEW groups count, or all are alike.

    Groups are drawn among those with an image that has the class or was given it: no other says anything of its F1.
    """
    import pandas as pd

    if scheme.kind == "number":
        limits = [(-high, -low) for low, high in (_interval(own, seed) or EMPTY for own in _errors(answer, sample, scheme))]
        return pd.DataFrame(limits, columns=["mean absolute error low", "mean absolute error high"])
    return pd.DataFrame([_interval(own, seed) or EMPTY for own in _f1(answer, sample, scheme)], columns=["F1 low", "F1 high"])


def _f1(answer: np.ndarray, sample: Sample, scheme: Scheme) -> Iterator[Evidence | None]:
    truth = sample.truth(scheme)
    given = answer >= TAGGED if scheme.kind == "tags" else answer.argmax(axis=1)
    for number in range(scheme.classes):
        has, got = (one[:, number] if scheme.kind == "tags" else one == number for one in (truth, given))
        rows = np.flatnonzero(has | got)
        yield evidence(F1, has[rows, None], got[rows, None].astype(float), sample.groups[rows]) if len(rows) else None


def _errors(answer: np.ndarray, sample: Sample, scheme: Scheme) -> Iterator[Evidence]:
    truth, metric = sample.truth(scheme), METRICS_OF["number"][EACH["number"]]
    for rows in fifths(truth):
        yield evidence(metric, truth[rows], answer[rows], sample.groups[rows])


def _scored(target: str, value: str, found: Evidence, sample: Sample, seed: int) -> PartScore:
    return PartScore(target, value, len(sample.ids), found.groups, found.score(), _interval(found, seed))


def _interval(found: Evidence | None, seed: int) -> Interval | None:
    if found is None or found.groups < FEW:
        return None
    low, high = found.interval(generator(seed, "bootstrap"))
    # Where all groups are alike, such as all wrong, drawing among them says nothing of others.
    return (low, high) if low < high else None
