"""Metrics of probabilities: how sure an answer is counts too."""

import numpy as np

from trainables.metrics.labels import mean, mean_slope
from trainables.metrics.metric import Metric, Summed


def log_likelihood(truth: np.ndarray, probabilities: np.ndarray, classes: int) -> np.ndarray:
    """The logarithm, in nats, of the probability of an image's true class, and 1 (n, 2).

    A probability counts as at least the smallest step of its type, as in scikit-learn.
    """
    least = np.finfo(probabilities.dtype).eps
    true = np.clip(probabilities[np.arange(len(truth)), truth], least, 1 - least).astype(float)
    return np.stack([np.log(true), np.ones(len(truth))], axis=1)


def roc_auc_ovr(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of each class against the rest, the mean over classes (m,); weights are (m, n).

    A class that every image or none has, by these weights, has no curve and is left out of the mean; 0.5 where that leaves none.
    scikit-learn refuses such truths. Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology, 1982.
    """
    # Image by image, so that what is added up lies together.
    by_image = np.ascontiguousarray(weights.T)
    areas = np.stack([_area(truth == one, probabilities[:, one], by_image) for one in range(probabilities.shape[1])])
    known = ~np.isnan(areas)
    total = np.where(known, areas, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(weights), 0.5), where=known.any(axis=0))


def _area(inside: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The area (m,) by weights (n, m) for one class: how often an image inside it scores above one outside, half of it where level."""
    order = np.argsort(scores, kind="stable")
    ranked, inside = weights[order], inside[order]
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # of each run of level scores
    within, outside = (np.where(side[:, None], ranked, 0) for side in (inside, ~inside))
    if len(starts) < len(order):
        within, outside = (np.add.reduceat(part, starts, axis=0) for part in (within, outside))
    pairs = within.sum(axis=0) * outside.sum(axis=0)
    below = outside.cumsum(axis=0) - outside / 2
    return np.divide((within * below).sum(axis=0), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


PROBABILITY_METRICS = (
    Metric(
        "neg_log_loss",
        "negative log loss",
        formula=Summed(log_likelihood, mean, mean_slope),
        wants="probabilities",
        bounds=(-np.inf, 0.0),
        chance=lambda classes: -float(np.log(classes)),
        explained="Negative log loss is the mean logarithm of the probability that was given to the true class: 0 is perfect, and being "
        "sure and wrong costs most.",
    ),
    Metric(
        "roc_auc_ovr",
        "ROC AUC",
        formula=roc_auc_ovr,
        wants="probabilities",
        chance=lambda classes: 0.5,
        balanced=True,
        explained="ROC AUC is how often an image of a class is given more of that class than one of another, the mean over classes: 0.5 is "
        "chance, 1 is perfect.",
        unseen="are left out of the ROC AUC",
    ),
)
