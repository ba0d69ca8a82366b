"""From a trial's settings and a run's data to all that `fit` needs. The preflight, trials and benchmarks build alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trainables.config import ConfigError, Mistake, TrialConfig
from trainables.data.augment import build_augment
from trainables.data.batches import PhotoError, TrainBatches
from trainables.data.labels import read_task
from trainables.data.photos import Photos
from trainables.data.sampling import build_sampler
from trainables.data.splits import Split
from trainables.data.views import View, open_view
from trainables.loop import Parts, Validation, choose_precision, optimizer_steps
from trainables.losses import build_loss
from trainables.mixing import build_mixer
from trainables.models.assemble import IMAGENET, Statistics, build_model
from trainables.optimizers import build_optimizer
from trainables.schedules import build_schedule


@dataclass(frozen=True)
class Data:
    """The photos of a run as its trials need them."""

    photos: Photos
    split: Split
    views: Mapping[View, Path]
    statistics: Mapping[View, Statistics]  # of the training photos, where some trial may normalise by them


def build_parts(config: TrialConfig, data: Data, device: torch.device, threads: int = 0, micro_batch: int = 0) -> Parts:
    """Everything that a trial trains with.

    Args:
        threads: that prepare batches ahead; 0 for none.
        micro_batch: photos per forward and backward pass, 2 or more; 0: the whole batch.
    Raises: ConfigError for names that do not exist and combinations that cannot be built, PhotoError for photos that are not in
        the view's file.
    """
    view = View.of(config.view)
    task = read_task(config.task, data.photos.scheme)
    array = _open(data.views[view], data.photos)
    labels = data.photos.labels[:, data.photos.scheme.columns(task.scheme.names)]
    classes = task.scheme.joint(labels)
    train, valid = data.split.train, data.split.valid
    if config.train.batch_size > len(train):
        message = f"{config.train.batch_size} is more than the {len(train)} training photos; take fewer"
        raise ConfigError([Mistake("train/batch_size", message)])
    batches = TrainBatches(
        view=array,
        rows=data.photos.rows[train],
        ids=tuple(data.photos.ids[index] for index in train),
        targets=task.targets(labels[train]),
        classes=classes[train],
        batch_size=config.train.batch_size,
        sampler=build_sampler(config.sampler),
        make_augment=partial(build_augment, config.augment),
        seed=config.seed,
        threads=threads,
    )
    statistics = data.statistics[view] if config.normalize == "dataset" else IMAGENET
    model = build_model(config.model, task, (view.height, view.width), statistics, config.seed).to(device)
    steps = optimizer_steps(len(batches), config.train.accumulate)
    precision = choose_precision(config.train.precision, device)
    return Parts(
        model=model,
        task=task,
        batches=batches,
        validation=Validation(array, data.photos.rows[valid], classes[valid]),
        loss=build_loss(config.loss),
        mixer=build_mixer(config.mix),
        optimizer=build_optimizer(config.optimizer, model),
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps, config.epochs),
        device=device,
        precision=precision,
        scaler=torch.amp.GradScaler(device.type, enabled=precision is torch.float16),
        micro_batch=micro_batch,
    )


def _open(file: Path, photos: Photos) -> np.ndarray:
    """The view in the file. Raises: PhotoError when the photos' rows are not all there."""
    mend = "Delete that file: the next run decodes the photos again"
    try:
        view = open_view(file)
    except (ValueError, EOFError) as error:
        raise PhotoError(f"the decoded photos in {file} cannot be read ({error}). {mend}.") from None
    beyond = np.flatnonzero(photos.rows >= len(view))
    if len(beyond):
        first = beyond[0]
        place = f"photo {photos.ids[first]} is row {photos.rows[first]} of {file}, which has {len(view)} rows"
        raise PhotoError(f"{place}; {len(beyond)} photos are missing in all. {mend}.")
    return view
