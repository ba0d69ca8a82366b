"""What an answer is worth on images that chose nothing: scores with intervals, and the gain over a reference on the same draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.uncertainty import Gain, paired_gain
from analysis.members.trials import Sample
from trainables.data.labels import Scheme
from trainables.metrics import METRICS, Metric, target_scores
from trainables.metrics.confusion import class_f1, confusion
from trainables.metrics.evidence import evidence
from trainables.seeding import generator

if TYPE_CHECKING:
    import pandas as pd

GUESSES = 20  # that a mean is taken of


@dataclass(frozen=True)
class Score:
    """One answer's worth."""

    score: float  # by the run's metric
    interval: tuple[float, float]  # 95 %, by the bootstrap over groups
    accuracy: float
    target_scores: dict[str, float]  # of each target alone, by the run's metric
    gain: Gain  # over the reference


def score_answers(answers: Mapping[str, np.ndarray], sample: Sample, scheme: Scheme, metric: Metric, seed: int) -> dict[str, Score]:
    """The scores of answers, each (images, classes) with the highest as its answer; gains are over the first one.

    The seed draws the groups of the bootstrap, the same ones for every answer.
    """
    truth = sample.classes(scheme)
    scores: dict[str, Score] = {}
    reference = None
    for name, answer in answers.items():
        found = evidence(metric, truth, answer, sample.groups)
        reference = found if reference is None else reference
        scores[name] = Score(
            score=found.score(),
            interval=found.interval(generator(seed, "bootstrap")),
            accuracy=METRICS["accuracy"].score(truth, answer),
            target_scores=target_scores(metric, scheme, truth, answer),
            gain=paired_gain(found, reference, generator(seed, "bootstrap")),
        )
    return scores


def plain_findings(answer: np.ndarray, sample: Sample, known: Sample, scheme: Scheme, metric: Metric, seed: int) -> list[str]:
    """What has to be said first of an answer that knows nothing: that it is always the same class, or no better than guessing.

    Guessing is the best of three ways that look at no image: the commonest class for every image, classes drawn as often as they are
    common, and for metrics of probabilities the shares of the classes.

    Args:
        answer: (n, classes) for the images of the sample.
        known: other labelled images, which say how common the classes are.
        seed: draws the groups of the interval, and the guesses.
    """
    predicted = answer.argmax(axis=1)
    labels = scheme.split(predicted)
    always = [
        f"{attribute.name} {attribute.values[labels[0, column]]}"
        for column, attribute in enumerate(scheme.attributes)
        if len(predicted) > 1 and len(attribute.values) > 1 and (labels[:, column] == labels[0, column]).all()
    ]
    found = [f"The answer is always {', '.join(always)}: it is the same for all {len(predicted):,} images."] if always else []
    own = evidence(metric, sample.classes(scheme), answer, sample.groups)
    least, guess = own.interval(generator(seed, "bootstrap"))[0 if metric.sign > 0 else 1], guess_score(sample, known, scheme, metric, seed)
    if metric.sign * least <= metric.sign * guess:
        found.append(
            f"The answer is no better than guessing: {metric.title} {own.score():.3f}, and guessing by how common the classes are scores "
            f"{guess:.3f}, which its 95 % CI does not exclude."
        )
    return found


def guess_score(sample: Sample, known: Sample, scheme: Scheme, metric: Metric, seed: int) -> float:
    """The best score, expected where it is drawn, of answers that look at no image."""
    rng, truth, classes = generator(seed, "bootstrap"), sample.classes(scheme), scheme.classes
    shares = np.bincount(known.classes(scheme), minlength=classes) / len(known.ids)
    commonest = np.tile(np.eye(classes)[shares.argmax()], (len(truth), 1))
    drawn = [metric.score(truth, np.eye(classes)[rng.choice(classes, size=len(truth), p=shares)]) for _ in range(GUESSES)]
    guesses = [metric.score(truth, commonest), float(np.mean(drawn)), metric.score(truth, np.tile(shares, (len(truth), 1)))]
    return max((guess for guess in guesses if np.isfinite(guess)), key=lambda guess: metric.sign * guess)


def class_table(answer: np.ndarray, sample: Sample, scheme: Scheme) -> "pd.DataFrame":
    """One row a class: its groups and images, precision (empty where nothing was given the class), recall (empty where nothing
    has it) and F1, which is 0 then, as in the macro F1."""
    import pandas as pd

    truth, predicted = sample.classes(scheme), answer.argmax(axis=1)
    counts = confusion(truth, predicted, scheme.classes)
    hits, true, given = np.diagonal(counts).astype(float), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the empty cell
        precision, recall = hits / given, hits / true
    return pd.DataFrame(
        {
            "class": scheme.class_names(),
            "people": [len(np.unique(sample.groups[truth == number])) for number in range(scheme.classes)],
            "photos": true,
            "precision": precision,
            "recall": recall,
            "F1": class_f1(hits, true + given),
        }
    )


def absent_classes(sample: Sample, scheme: Scheme) -> list[str]:
    """Names of the classes that no image of the sample has."""
    return scheme.absent(sample.classes(scheme))
