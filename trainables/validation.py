"""The score of a trial on its validation groups, with a 95 % CI."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trainables.config import TrialConfig
from trainables.data.images import Images
from trainables.data.splits import Split
from trainables.data.targets import read_task
from trainables.metrics import metric_of
from trainables.metrics.evidence import Evidence, evidence
from trainables.record import Predictions
from trainables.seeding import generator


def validation_interval(config: TrialConfig, predictions: Predictions, images: Images, split: Split) -> tuple[float, float]:
    """The 95 % CI, by the bootstrap over groups, of the score of a trial's predictions on its validation images, in their order.

    Raises: ConfigError for a metric that is not known.
    """
    return evidence_of([(config, predictions)], images, split).interval(generator(config.seed, "bootstrap"))


def pooled_score(trials: Sequence[tuple[TrialConfig, Predictions]], images: Images, split: Split) -> tuple[float, tuple[float, float]]:
    """The score of the predictions of several trials taken together, and its 95 % CI by the bootstrap over groups.

    Args:
        trials: one for each of some folds, so that no group is predicted twice, nor by a trial that trained on it.
    """
    found = evidence_of(trials, images, split)
    return found.score(), found.interval(generator(trials[0][0].seed, "bootstrap"))


def score_by(name: str, config: TrialConfig, predictions: Predictions, images: Images, split: Split) -> float:
    """The score of a trial's predictions of validation images by another metric of the same targets. Raises: ConfigError."""
    return evidence_of([(config.model_copy(update={"metric": name}), predictions)], images, split).score()


def evidence_of(trials: Sequence[tuple[TrialConfig, Predictions]], images: Images, split: Split) -> Evidence:
    """The evidence for one answer to the images of the folds that validated the trials; groups are numbered fold by fold.

    Args:
        trials: as for `pooled_score`.
    """
    truths, answers, groups, count = [], [], [], 0
    first, _ = trials[0]
    metric = metric_of(first.metric, read_task(first.task, images.scheme).scheme)
    for config, predictions in trials:
        task, valid = read_task(config.task, images.scheme), replace(split, fold=config.data.fold).valid
        truths.append(images.truth(task.scheme.of_kind(metric.target))[valid])
        answers.append(task.answer(predictions.heads, metric.target))
        own, group = np.unique(images.groups[valid], return_inverse=True)
        groups.append(count + group)
        count += len(own)
    return evidence(metric, *map(np.concatenate, (truths, answers, groups)))
