"""Classes, or tags, that more images would help most: those with few groups that are answered worse than others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.scoring import class_table
from analysis.members.trials import Runs, Sample
from trainables.data.targets import Kind, Scheme

SCORED: dict[Kind, str] = {"classes": "F1", "tags": "average precision"}  # column of `class_table`


@dataclass(frozen=True)
class Need:
    """A class that more images would help."""

    name: str
    groups: int  # that have it, those that are held out aside
    score: float  # F1 of a class, average precision of a tag
    mean: float  # of all classes
    rise: float | None  # of the score, from half of the training groups to all of them; None: not known


def needs_in(runs: Runs, rises: Mapping[str, float]) -> tuple[Need, ...] | str:
    """Those of a run, by its best trial; why there are none where the target has no classes."""
    best = runs.widest
    scheme = best.task.scheme
    if scheme.kind == "number":
        return f"{', '.join(scheme.names)} is a number and has no classes"
    return tuple(needs(class_scores(best.valid, runs.valid, scheme), runs.learned, scheme, rises))


def class_scores(answer: np.ndarray, sample: Sample, scheme: Scheme) -> dict[str, float]:
    """The score of each class or tag that has images among those of the sample, by name."""
    table = class_table(answer, sample, scheme)
    scores = zip(table.iloc[:, 0], table["photos"], table[SCORED[scheme.kind]], strict=True)
    return {str(name): float(score) for name, images, score in scores if images}


def needs(scores: Mapping[str, float], known: Sample, scheme: Scheme, rises: Mapping[str, float]) -> list[Need]:
    """The classes with no more groups than the median one that score below the mean of all, the lowest score first; where it is known
    what more groups do, only those that do not fall with them.

    Args:
        scores: by class, of those that were evaluated.
        known: the labelled images that may be used.
        rises: by class, what the second half of the training groups gave.
    """
    truth = known.truth(scheme)
    has = truth.T if scheme.kind == "tags" else truth == np.arange(scheme.classes)[:, None]
    groups = {name: len(np.unique(known.groups[own])) for name, own in zip(scheme.class_names(), has.astype(bool), strict=True)}
    if not scores:
        return []
    middle, mean = float(np.median([groups[name] for name in scores])), float(np.mean(list(scores.values())))
    found = [
        Need(name, groups[name], score, mean, rises.get(name))
        for name, score in scores.items()
        if groups[name] <= middle and score < mean and rises.get(name, 0.0) >= 0
    ]
    return sorted(found, key=lambda one: one.score)
