"""What a vote answers for the images that its own models learned from, so that a student learns it: out of fold where it can be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.answering import Answering
from analysis.members.predictions import Source, TrialModels, count_passes, predict_trials
from trainables.card import read_card
from trainables.data.images import Images
from trainables.data.splits import HOLDOUT, Split
from trainables.data.teacher import Teacher, Unseen
from trainables.data.views import ViewFiles
from trainables.progress import progress_bar

if TYPE_CHECKING:
    import torch


def teach(answering: Answering, images: Images, split: Split, files: ViewFiles, unseen: Unseen, device: "torch.device") -> Teacher:
    """The vote's answers to all images but those that are held out.

    A trial answers for an image of a fold by its model that validated on that fold, and so did not train on it; where it has none, by
    the mean of all its models, which are surer of images that they trained on than of others.

    Args:
        images, split: as the models had them.
        unseen: what it answers for images without labels.
    """
    pipeline, folds = answering.content.pipeline, [fold_of(trial) for trial in answering.trials]
    taught = np.flatnonzero(split.part != HOLDOUT)
    answers = np.empty((len(images), pipeline.scheme.classes), dtype=np.float32)
    out_of_fold = np.zeros(len(images), dtype=bool)
    sources = {part: np.flatnonzero(split.part == part) for part in np.unique(split.part[taught]).tolist()}
    chosen = {part: [unseen_by(trial, own, part) for trial, own in zip(answering.trials, folds, strict=True)] for part in sources}
    passes = [
        count_passes(trials, Source(files, [images.ids[row] for row in sources[part]]), pipeline.looks) for part, trials in chosen.items()
    ]
    with progress_bar("the teacher answers the images that it learned from", sum(passes)) as progress:
        for part, rows in sources.items():
            source = Source(files, [images.ids[row] for row in rows])
            answers[rows] = pipeline(predict_trials(chosen[part], source, device, progress, pipeline.looks))
            out_of_fold[rows] = all(part in own for own in folds)
    ids = tuple(images.ids[row] for row in taught.tolist())
    return Teacher(pipeline.scheme, ids, answers[taught], out_of_fold[taught], unseen)


def fold_of(trial: TrialModels) -> Sequence[int]:
    """The fold that each model of a trial validated on, or NO_FOLD."""
    return [read_card(file).config.data.fold for file in trial.models]


def unseen_by(trial: TrialModels, folds: Sequence[int], part: int) -> TrialModels:
    """The trial with its model that did not train on the images of a part; with all of them where there is none."""
    return replace(trial, models=(trial.models[folds.index(part)],)) if part in folds else trial
