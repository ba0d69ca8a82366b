"""Metrics of tags, of which an image has any number: truth and prediction are (n, tags), whether it has each or how probable that is."""

import numpy as np

from trainables.metrics.confusion import class_f1, shares
from trainables.metrics.labels import each, f1_macro, f1_macro_slope, mean, mean_slope
from trainables.metrics.metric import Metric, Summed
from trainables.metrics.probabilities import column_area, column_precision, mean_over_columns


def hits_and_ends(truth: np.ndarray, predicted: np.ndarray, tags: int) -> np.ndarray:
    """Which tags of an image are right, then how often each is there in truth and answer together (n, 2 tags)."""
    return np.concatenate([truth * predicted, truth.astype(int) + predicted], axis=1).astype(np.float32)


def all_hits_and_ends(truth: np.ndarray, predicted: np.ndarray, tags: int) -> np.ndarray:
    """Likewise, over all tags (n, 2)."""
    return np.stack([(truth * predicted).sum(axis=1), truth.sum(axis=1) + predicted.sum(axis=1)], axis=1).astype(np.float32)


def f1_micro(sums: np.ndarray) -> np.ndarray:
    """F1 over all pairs of an image and a tag; 0 where there are none."""
    return class_f1(sums[..., 0], sums[..., 1])


def f1_micro_slope(sums: np.ndarray) -> np.ndarray:
    share = shares(np.ones_like(sums[..., 1]), sums[..., 1])
    return np.stack([2 * share, -f1_micro(sums) * share], axis=-1)


def image_f1(truth: np.ndarray, predicted: np.ndarray, tags: int) -> np.ndarray:
    """The F1 of an image's tags, 0 where it has and got none, and 1 (n, 2)."""
    hits, ends = all_hits_and_ends(truth, predicted, tags).astype(float).T
    return each(class_f1(hits, ends))


def all_right(truth: np.ndarray, predicted: np.ndarray, tags: int) -> np.ndarray:
    """Whether all tags of an image are right, and 1 (n, 2)."""
    return each((truth == predicted).all(axis=1))


def share_wrong(truth: np.ndarray, predicted: np.ndarray, tags: int) -> np.ndarray:
    """Minus the share of an image's tags that are wrong, and 1 (n, 2)."""
    return each(-(truth != predicted).mean(axis=1))


def average_precision(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over tags of each one's average precision (m,); weights are (m, n).

    A tag that no image has, by these weights, is left out of the mean; 0 where that leaves none. scikit-learn takes 0 for it.
    """
    return mean_over_columns(truth.astype(bool), probabilities, weights, column_precision, nothing=0.0)


def average_precision_micro(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The average precision over all pairs of an image and a tag (m,); weights are (m, n)."""
    pairs = np.repeat(weights, truth.shape[1], axis=1)
    return mean_over_columns(truth.astype(bool).reshape(-1, 1), probabilities.reshape(-1, 1), pairs, column_precision, nothing=0.0)


def roc_auc(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over tags of the area under the ROC curve (m,); weights are (m, n).

    A tag that every image or none has, by these weights, is left out of the mean; 0.5 where that leaves none.
    """
    return mean_over_columns(truth.astype(bool), probabilities, weights, column_area, nothing=0.5)


TAG_METRICS = (
    Metric(
        "average_precision",
        "average precision",
        formula=average_precision,
        target="tags",
        takes="probabilities",
        chance=lambda tags: 0.0,
        balanced=True,
        explained="Average precision is the area under each tag's curve of precision over recall, the mean over tags: 1 is perfect, and a "
        "tag's share of the images is what chance reaches.",
        unseen="are left out of the average precision",
    ),
    Metric(
        "average_precision_micro",
        "micro average precision",
        formula=average_precision_micro,
        target="tags",
        takes="probabilities",
        chance=lambda tags: 0.0,
        explained="Micro average precision is the area under the curve of precision over recall of all pairs of an image and a tag.",
    ),
    Metric(
        "f1_macro",
        "macro F1",
        formula=Summed(hits_and_ends, f1_macro, f1_macro_slope),
        target="tags",
        chance=lambda tags: 0.0,
        balanced=True,
        explained="Macro F1 runs from 0 to 1 and is the mean over all tags of how well each is recognised.",
        unseen="count as 0 in macro F1",
    ),
    Metric(
        "f1_micro",
        "micro F1",
        formula=Summed(all_hits_and_ends, f1_micro, f1_micro_slope),
        target="tags",
        chance=lambda tags: 0.0,
        explained="Micro F1 runs from 0 to 1 and is the F1 over all pairs of an image and a tag: common tags count most.",
    ),
    Metric(
        "f1_samples",
        "F1 per image",
        formula=Summed(image_f1, mean, mean_slope),
        target="tags",
        chance=lambda tags: 0.0,
        explained="F1 per image is the mean over images of how well the tags of each are recognised; an image without tags counts as 0.",
    ),
    Metric(
        "roc_auc",
        "ROC AUC",
        formula=roc_auc,
        target="tags",
        takes="probabilities",
        chance=lambda tags: 0.5,
        balanced=True,
        explained="ROC AUC is the probability that an image with a tag is ranked above one without, the mean over tags: 0.5 is "
        "chance, 1 is perfect.",
        unseen="are left out of the ROC AUC",
    ),
    Metric(
        "accuracy",
        "subset accuracy",
        formula=Summed(all_right, mean, mean_slope),
        target="tags",
        chance=lambda tags: 0.0,
        explained="Subset accuracy is the share of images all of whose tags are right.",
    ),
    Metric(
        "neg_hamming_loss",
        "negative Hamming loss",
        formula=Summed(share_wrong, mean, mean_slope),
        target="tags",
        bounds=(-1.0, 0.0),
        chance=lambda tags: -0.5,
        explained="The negative Hamming loss is minus the share of all pairs of an image and a tag that are wrong: 0 is perfect.",
    ),
)
