"""What an answer is worth on images that chose nothing: scores with intervals, and the gain over a reference on the same draws."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.uncertainty import Gain, paired_gain
from analysis.members.trials import Sample
from trainables.data.images import strata_of
from trainables.data.targets import Scheme
from trainables.metrics import METRICS_OF, Metric, accuracy_of, target_scores
from trainables.metrics.confusion import class_f1, confusion
from trainables.metrics.evidence import evidence
from trainables.metrics.metric import TAGGED
from trainables.seeding import generator

if TYPE_CHECKING:
    import pandas as pd

GUESSES = 20  # that a mean is taken of


@dataclass(frozen=True)
class Score:
    """One answer's worth."""

    score: float  # by the run's metric
    interval: tuple[float, float]  # 95 %, by the bootstrap over groups
    accuracy: float | None  # of tags, the share of images all of whose tags are right; None of a number
    target_scores: dict[str, float]  # of each target alone, by the run's metric
    gain: Gain  # over the reference


@dataclass(frozen=True)
class AlsoScored:
    """An answer's worth by a metric that decides nothing."""

    metric: str
    title: str
    score: float
    interval: tuple[float, float]  # 95 %, by the bootstrap over groups

    def __str__(self) -> str:
        return f"{self.title} {self.score:.3f} ({self.interval[0]:.3f} to {self.interval[1]:.3f})"


def score_answers(answers: Mapping[str, np.ndarray], sample: Sample, scheme: Scheme, metric: Metric, seed: int) -> dict[str, Score]:
    """The scores of answers, each (images, classes) with the highest as its answer; gains are over the first one.

    The seed draws the groups of the bootstrap, the same ones for every answer.
    """
    truth = sample.truth(scheme)
    scores: dict[str, Score] = {}
    reference = None
    for name, answer in answers.items():
        found = evidence(metric, truth, answer, sample.groups)
        reference = found if reference is None else reference
        scores[name] = Score(
            score=found.score(),
            interval=found.interval(generator(seed, "bootstrap")),
            accuracy=accuracy_of(metric, truth, answer),
            target_scores=target_scores(metric, scheme, truth, answer),
            gain=paired_gain(found, reference, generator(seed, "bootstrap")),
        )
    return scores


def plain_findings(answer: np.ndarray, sample: Sample, known: Sample, scheme: Scheme, metric: Metric, seed: int) -> list[str]:
    """What has to be said first of an answer that knows nothing: that it is always the same class, or no better than guessing.

    Guessing is the best of three ways that use no image: the commonest class for every image, classes drawn as often as they are
    common, and for metrics of probabilities the shares of the classes.

    Args:
        answer: (n, classes) for the images of the sample.
        known: other labelled images, which say how common the classes are.
        seed: draws the groups of the interval, and the guesses.
    """
    always = _always(answer, scheme) if len(answer) > 1 else []
    found = [f"The answer is always {', '.join(always)}: it is the same for all {len(answer):,} images."] if always else []
    own = evidence(metric, sample.truth(scheme), answer, sample.groups)
    least, guess = own.interval(generator(seed, "bootstrap"))[0 if metric.sign > 0 else 1], guess_score(sample, known, scheme, metric, seed)
    if metric.sign * least <= metric.sign * guess:
        found.append(
            f"The answer is not significantly better than guessing: {metric.title} {own.score():.3f}; guessing by the labels alone scores "
            f"{guess:.3f}, and the 95 % CI does not exclude that."
        )
    return found


def scores_by(metrics: Sequence[Metric], answer: np.ndarray, sample: Sample, scheme: Scheme, seed: int) -> list[AlsoScored]:
    """The score of an answer (n, columns) by further metrics, each with its interval."""
    found = [(metric, evidence(metric, sample.truth(scheme), answer, sample.groups)) for metric in metrics]
    return [AlsoScored(one.name, one.title, own.score(), own.interval(generator(seed, "bootstrap"))) for one, own in found]


def also_words(also: Sequence[AlsoScored]) -> str:
    """What an answer is worth on the hold-out by the metrics that decide nothing, in a sentence; nothing where there are none."""
    return f"By other metrics on the hold-out (95 % CI): {'; '.join(map(str, also))}." if also else ""


def _always(answer: np.ndarray, scheme: Scheme) -> list[str]:
    """What an answer (n, columns) says of every image, target by target; of several Classes those that are always the same."""
    if scheme.kind == "number":
        constant = np.ptp(answer) <= 1e-9 * max(1.0, np.abs(answer).max())
        return [f"{scheme.names[0]} {answer[0, 0]:.3g}"] if constant else []
    if scheme.kind == "tags":
        tagged = answer >= TAGGED
        if (tagged != tagged[0]).any():
            return []
        (target,) = scheme.targets
        return [", ".join(value for value, there in zip(target.values, tagged[0], strict=True) if there) or f"none of {target.name}"]
    labels = scheme.split(answer.argmax(axis=1))
    return [
        f"{target.name} {target.values[labels[0, column]]}"
        for column, target in enumerate(scheme.targets)
        if len(target.values) > 1 and (labels[:, column] == labels[0, column]).all()
    ]


def guess_score(sample: Sample, known: Sample, scheme: Scheme, metric: Metric, seed: int) -> float:
    """The best score, expected where it is drawn, of answers that use no image."""
    rng, truth, classes = generator(seed, "bootstrap"), sample.truth(scheme), scheme.classes
    if scheme.kind != "classes":
        learned = known.truth(scheme).astype(float)
        constants = [learned.mean(axis=0), np.median(learned, axis=0)]
        return _best([metric.score(truth, np.tile(one, (len(truth), 1)).reshape(len(truth), classes)) for one in constants], metric)
    shares = np.bincount(known.truth(scheme), minlength=classes) / len(known.ids)
    commonest = np.tile(np.eye(classes)[shares.argmax()], (len(truth), 1))
    drawn = [metric.score(truth, np.eye(classes)[rng.choice(classes, size=len(truth), p=shares)]) for _ in range(GUESSES)]
    guesses = [metric.score(truth, commonest), float(np.mean(drawn)), metric.score(truth, np.tile(shares, (len(truth), 1)))]
    return _best(guesses, metric)


def _best(scores: Sequence[float], metric: Metric) -> float:
    return max((score for score in scores if np.isfinite(score)), key=lambda score: metric.sign * score)


def class_table(answer: np.ndarray, sample: Sample, scheme: Scheme) -> "pd.DataFrame":
    """One row a class or tag: its groups and images, precision (empty where nothing was given it), recall (empty where nothing has it) and
    F1, which is 0 then, as in the macro F1; of tags, average precision too. Of a number one row for each fifth of the images."""
    import pandas as pd

    if scheme.kind == "tags":
        return pd.DataFrame(list(_tag_rows(answer, sample, scheme)))
    if scheme.kind == "number":
        return pd.DataFrame(list(_number_rows(answer, sample, scheme)))
    truth, predicted = sample.truth(scheme), answer.argmax(axis=1)
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


def _tag_rows(answer: np.ndarray, sample: Sample, scheme: Scheme) -> Iterator[dict[str, object]]:
    truth, predicted = sample.truth(scheme), answer >= TAGGED
    for column, name in enumerate(scheme.class_names()):
        true, given = truth[:, column], predicted[:, column]
        hits, has, got = (true & given).sum(), true.sum(), given.sum()
        yield {
            "tag": name,
            "people": len(np.unique(sample.groups[true])),
            "photos": has,
            "precision": hits / got if got else np.nan,
            "recall": hits / has if has else np.nan,
            "F1": 2 * hits / (has + got) if has + got else 0.0,
            "average precision": METRICS_OF["tags"]["average_precision"].score(true[:, None], answer[:, [column]]) if has else np.nan,
        }


def _number_rows(answer: np.ndarray, sample: Sample, scheme: Scheme) -> Iterator[dict[str, object]]:
    truth = sample.truth(scheme)
    for own in fifths(truth):
        error = answer[own, 0] - truth[own]
        yield {
            scheme.names[0]: f"{truth[own].min():g} to {truth[own].max():g}",
            "people": len(np.unique(sample.groups[own])),
            "photos": own.sum(),
            "mean error": error.mean(),
            "mean absolute error": np.abs(error).mean(),
        }


def fifths(numbers: np.ndarray) -> list[np.ndarray]:
    """Which images (n,) are in each fifth of their numbers (n,), the lowest first."""
    fifth = strata_of(numbers)
    return [fifth == one for one in np.unique(fifth)]


def tag_words(answer: np.ndarray, scheme: Scheme) -> list[str]:
    """The tags (n,) that each row of an answer (n, tags) says to be there, with semicolons between."""
    names = np.array(scheme.class_names(), dtype=object)
    return [";".join(names[row]) for row in answer >= TAGGED]


def absent_classes(sample: Sample, scheme: Scheme) -> list[str]:
    """Names of the classes, or of the tags, that no image of the sample has."""
    truth = sample.truth(scheme)
    if scheme.kind == "tags":
        return [name for name, there in zip(scheme.class_names(), truth.sum(axis=0).tolist(), strict=True) if not there]
    return scheme.absent(truth) if scheme.kind == "classes" else []
