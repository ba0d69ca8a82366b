"""How good a trial is on the people who validated it, and how sure that is."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trainables.config import TrialConfig
from trainables.data.labels import read_task
from trainables.data.photos import Photos
from trainables.data.splits import Split
from trainables.metrics.f1 import f1_interval, macro_f1, person_counts
from trainables.record import Predictions
from trainables.seeding import generator


def validation_interval(config: TrialConfig, predictions: Predictions, photos: Photos, split: Split) -> tuple[float, float]:
    """The person-bootstrap 95 % interval of the macro F1 of a trial's predictions on its validation photos, in their order."""
    return _interval(config, _counts(config, predictions, photos, split))


def pooled_f1(trials: Sequence[tuple[TrialConfig, Predictions]], photos: Photos, split: Split) -> tuple[float, tuple[float, float]]:
    """The macro F1 of the predictions of several trials taken together, and its person-bootstrap 95 % interval.

    Args:
        trials: one for each of some folds, so that nobody is predicted twice, nor by a trial that trained on them.
    """
    counts = np.concatenate([_counts(config, predictions, photos, split) for config, predictions in trials])
    return float(macro_f1(counts.sum(axis=0))), _interval(trials[0][0], counts)


def _interval(config: TrialConfig, counts: np.ndarray) -> tuple[float, float]:
    return f1_interval(counts, generator(config.seed, "bootstrap"))


def _counts(config: TrialConfig, predictions: Predictions, photos: Photos, split: Split) -> np.ndarray:
    """Confusion counts (people, classes, classes) of each person of the fold that validated the trial."""
    task, valid = read_task(config.task, photos.scheme), replace(split, fold=config.data.fold).valid
    truth = task.scheme.joint(photos.labels[valid][:, photos.scheme.columns(task.scheme.names)])
    predicted = task.joint_probabilities(predictions.heads).argmax(axis=1)
    return person_counts(truth, predicted, photos.people[valid], task.scheme.classes)
