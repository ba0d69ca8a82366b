"""Metrics of probabilities: how sure an answer is counts too."""

from collections.abc import Callable
from functools import partial

import numpy as np

from trainables.metrics.labels import each, mean, mean_slope
from trainables.metrics.metric import Metric, Summed


def log_likelihood(truth: np.ndarray, probabilities: np.ndarray, classes: int) -> np.ndarray:
    """The logarithm, in nats, of the probability of an image's true class, and 1 (n, 2).

    A probability counts as at least the smallest step of its type, as in scikit-learn.
    """
    least = np.finfo(probabilities.dtype).eps
    true = np.clip(probabilities[np.arange(len(truth)), truth], least, 1 - least).astype(float)
    return each(np.log(true))


def squared_distance(truth: np.ndarray, probabilities: np.ndarray, classes: int) -> np.ndarray:
    """Less the squared distance of an image's probabilities from certainty of its true class, and 1 (n, 2).

    Source: Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review, 1950.
    """
    wide = probabilities.astype(float)
    true = wide[np.arange(len(truth)), truth]
    return each(2 * true - 1 - (wide**2).sum(axis=1))


def among_first(truth: np.ndarray, probabilities: np.ndarray, classes: int, most: int) -> np.ndarray:
    """Whether the true class of an image is among its `most` most probable ones, and 1 (n, 2); of equals the last come first."""
    true = probabilities[np.arange(len(truth)), truth][:, None]
    above = (probabilities > true) | ((probabilities == true) & (np.arange(classes) > truth[:, None]))
    return each(above.sum(axis=1) < most)


def average_precision(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over classes of each one's average precision against the rest (m,); weights are (m, n).

    A class that no image has, by these weights, is left out of the mean; 0 where that leaves none. scikit-learn takes 0 for it.
    """
    return mean_over_columns(np.arange(probabilities.shape[1]) == truth[:, None], probabilities, weights, column_precision, nothing=0.0)


def roc_auc_ovr(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of each class against the rest, the mean over classes (m,); weights are (m, n).

    A class that every image or none has, by these weights, has no curve and is left out of the mean; 0.5 where that leaves none.
    scikit-learn refuses such truths. Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology, 1982.
    """
    return mean_over_columns(np.arange(probabilities.shape[1]) == truth[:, None], probabilities, weights, column_area, nothing=0.5)


Column = Callable[[np.ndarray, np.ndarray], np.ndarray]  # weights (levels, m) of what is inside and of what is outside -> (m,)


def mean_over_columns(inside: np.ndarray, scores: np.ndarray, weights: np.ndarray, column: Column, nothing: float) -> np.ndarray:
    """The mean (m,) over columns of what follows from the order of their scores; columns that make NaN of it are left out.

    Args:
        inside: whether each image has each class or tag (n, columns).
        scores: (n, columns).
        weights: (m, n).
        nothing: the mean where every column is left out.
    """
    # Image by image, so that what is added up lies together.
    by_image = np.ascontiguousarray(weights.T)
    found = np.stack([column(*_levels(own, score, by_image)) for own, score in zip(inside.T, scores.T, strict=True)])
    known = ~np.isnan(found)
    total = np.where(known, found, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(weights), nothing), where=known.any(axis=0))


def column_area(within: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The area under the ROC curve: how often an image inside scores above one outside, half of it where level."""
    pairs = within.sum(axis=0) * outside.sum(axis=0)
    below = outside.cumsum(axis=0) - outside / 2
    return np.divide((within * below).sum(axis=0), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def column_precision(within: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The precision at each level, averaged over the images inside that it adds."""
    taken, others = (part[::-1].cumsum(axis=0)[::-1] for part in (within, outside))
    total = within.sum(axis=0)
    added = (within * np.divide(taken, taken + others, out=np.zeros(taken.shape), where=taken > 0)).sum(axis=0)
    return np.divide(added, total, out=np.full(len(total), np.nan), where=total > 0)


def _levels(inside: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Weights (n, m) of the images inside and of those outside, added up where scores are level, by ascending score."""
    order = np.argsort(scores, kind="stable")
    ranked, inside = weights[order], inside[order]
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    parts = [np.where(side[:, None], ranked, 0) for side in (inside, ~inside)]
    return [np.add.reduceat(part, starts, axis=0) for part in parts] if len(starts) < len(order) else parts


PROBABILITY_METRICS = (
    Metric(
        "neg_log_loss",
        "negative log loss",
        formula=Summed(log_likelihood, mean, mean_slope),
        takes="probabilities",
        bounds=(-np.inf, 0.0),
        chance=lambda classes: -float(np.log(classes)),
        explained="Negative log loss is the mean logarithm of the probability that was given to the true class: 0 is perfect, and being "
        "sure and wrong costs most.",
    ),
    Metric(
        "neg_brier_score",
        "negative Brier score",
        formula=Summed(squared_distance, mean, mean_slope),
        takes="probabilities",
        bounds=(-2.0, 0.0),
        chance=lambda classes: 1 / classes - 1,
        explained="The negative Brier score is minus the mean squared distance of the probabilities from certainty of the true class: 0 is "
        "perfect, -2 is sure and always wrong.",
    ),
    *(
        Metric(
            f"top_{most}_accuracy",
            f"top-{most} accuracy",
            formula=Summed(partial(among_first, most=most), mean, mean_slope),
            takes="probabilities",
            chance=lambda classes, most=most: min(1.0, most / classes),
            explained=f"Top-{most} accuracy is the share of images whose class is among the {most} most probable ones.",
        )
        for most in (2, 3, 5)
    ),
    Metric(
        "average_precision",
        "average precision",
        formula=average_precision,
        takes="probabilities",
        balanced=True,
        explained="Average precision is the area under the curve of precision over recall of each class against the rest, the mean over "
        "classes: 1 is perfect, and a class's share of the images is what chance reaches.",
        unseen="are left out of the average precision",
    ),
    Metric(
        "roc_auc_ovr",
        "ROC AUC",
        formula=roc_auc_ovr,
        takes="probabilities",
        chance=lambda classes: 0.5,
        balanced=True,
        explained="ROC AUC is the probability that an image of a class is ranked above one of another class, the mean over classes: "
        "0.5 is chance, 1 is perfect.",
        unseen="are left out of the ROC AUC",
    ),
)
