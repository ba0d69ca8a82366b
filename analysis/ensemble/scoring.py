"""What an answer is worth on photos that chose nothing: scores with intervals, and the gain over a reference on the same draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.trials import Sample
from analysis.uncertainty import Gain, paired_gain
from trainables.data.labels import Scheme
from trainables.metrics.f1 import accuracy, attribute_f1, class_f1, confusion, f1_interval, macro_f1, person_counts
from trainables.seeding import generator


@dataclass(frozen=True)
class Score:
    """One answer's worth."""

    macro_f1: float  # over all classes; an absent one counts as 0
    interval: tuple[float, float]  # 95 %, by the bootstrap over people
    accuracy: float
    attribute_f1: dict[str, float]
    gain: Gain  # over the reference


def score_answers(answers: Mapping[str, np.ndarray], sample: Sample, scheme: Scheme, seed: int) -> dict[str, Score]:
    """The scores of answers, each (photos, classes) with the highest as its answer; gains are over the first one.

    The seed draws the people of the bootstrap, the same ones for every answer.
    """
    truth = sample.classes(scheme)
    scores: dict[str, Score] = {}
    reference = None
    for name, answer in answers.items():
        predicted = answer.argmax(axis=1)
        counts = person_counts(truth, predicted, sample.people, scheme.classes)
        reference = counts if reference is None else reference
        total = counts.sum(axis=0)
        scores[name] = Score(
            macro_f1=float(macro_f1(total)),
            interval=f1_interval(counts, generator(seed, "bootstrap")),
            accuracy=float(accuracy(total)),
            attribute_f1=attribute_f1(scheme, truth, predicted),
            gain=paired_gain(counts, reference, generator(seed, "bootstrap")),
        )
    return scores


def class_table(answer: np.ndarray, sample: Sample, scheme: Scheme) -> pd.DataFrame:
    """One row a class: its people and photos, precision (empty where nothing was given the class), recall (empty where nothing
    has it) and F1, which is 0 then, as in the macro F1."""
    truth, predicted = sample.classes(scheme), answer.argmax(axis=1)
    counts = confusion(truth, predicted, scheme.classes)
    hits = np.diagonal(counts).astype(float)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the empty cell
        precision, recall = hits / counts.sum(axis=0), hits / counts.sum(axis=1)
    return pd.DataFrame(
        {
            "class": scheme.class_names(),
            "people": [len(np.unique(sample.people[truth == number])) for number in range(scheme.classes)],
            "photos": counts.sum(axis=1),
            "precision": precision,
            "recall": recall,
            "F1": class_f1(counts),
        }
    )


def absent_classes(sample: Sample, scheme: Scheme) -> list[str]:
    """Names of the classes that no photo of the sample has."""
    return scheme.absent(sample.classes(scheme))
