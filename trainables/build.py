"""From a trial's settings and a run's data to all that `fit` needs. The preflight, trials and benchmarks build alike."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from trainables.averaging import moving_average
from trainables.config import TrialConfig
from trainables.data.augment import build_augment
from trainables.data.batches import Pairs, Pictures, TrainBatches, rows_of
from trainables.data.images import DataError, ImageError
from trainables.data.sampling import build_sampler
from trainables.data.targets import Scheme, Task, read_task
from trainables.data.training import ChannelStatistics, Data, TrainingImages, jittered, training_images, unlabelled_images
from trainables.data.views import OpenView, View, ViewFile, open_view
from trainables.loop import Parts, Validation, choose_precision, optimizer_steps
from trainables.losses import CosineHeadSettings, Head, build_losses
from trainables.losses.ordinal import ordinal_head
from trainables.metrics import metric_of
from trainables.mixing import build_mixer
from trainables.models.assemble import IMAGENET, build_model
from trainables.models.backbone import pretrained_statistics
from trainables.models.settings import POOLS, ModelConfig
from trainables.optimizers import build_optimizer
from trainables.registry import ConfigError, Mistake, choose
from trainables.schedules import PlateauSettings, build_schedule
from trainables.seeding import generator
from trainables.semi import FOR_CLASSES, NO_UNLABELLED, Semi, build_semi
from trainables.zero_shot import Words, read_words


def build_parts(config: TrialConfig, data: Data, device: torch.device, threads: int = 0, micro_batch: int = 0) -> Parts:
    """Everything that a trial trains with.

    Args:
        threads: that prepare batches ahead; 0 for none.
        micro_batch: images per forward and backward pass, 2 or more; 0: the whole batch.
    Raises: ConfigError for names that do not exist and combinations that cannot be built, ImageError for images that
        are neither decoded nor can be.
    """
    view, data = View.of(config.view), data.only(config.data.only)
    task = read_task(config.task, data.images.scheme)
    train = training_images(config.labels, data, task)
    valid = data.split.valid
    # A refit of the last epochs keeps the batch that fits the searched trial's images; fewer of them are one incomplete batch.
    if config.train.batch_size > len(train) and not config.data.goes_on:
        message = f"{config.train.batch_size} is more than the {len(train)} training images; lower it"
        raise ConfigError([Mistake("train/batch_size", message)])
    if not len(valid):
        _refuse_what_needs_scores(config)
    words = _words_of(config, task, data.images.scheme)
    if choose(POOLS, config.pool.name, "pool/name").head is not None:
        why = f"is for vectors or heads of its own, and pool/name: {config.pool.name} has a head for each position"
        if mistakes := _not_of_linear_heads(config, why):
            raise ConfigError(mistakes)
    scale = spread_of(*(target for target, part in zip(train.targets, task.head_schemes, strict=True) if part.kind == "number"))
    if config.loss.regression:
        train, scale = with_numbers(train, config, task)
    own, *_ = views = [_open(one.views[view]) for one in (data, *data.extra)]
    edges, mixer, semi = config.model.sees_edges, build_mixer(config.mix), build_semi(config.semi)
    pairs = pairs_of(semi, config, data, task, views) if semi else None
    batches = TrainBatches(
        views=[seen.images for seen in views],
        rows=rows_of(train, views),
        images=train,
        batch_size=config.train.batch_size,
        sampler=build_sampler(config.sampler),
        make_augment=partial(build_augment, config.augment),
        seed=config.seed,
        threads=threads,
        edges=edges,
        partners=mixer.prob if mixer and mixer.from_train else 0.0,
        pairs=pairs,
    )
    statistics = statistics_to_normalise_by(config.normalize, config.model, data.statistics, view)
    model = build_model(config, task, statistics, scale)
    if words:
        words.give(model, task)
    model = model.to(device)
    heads = [
        Head(part.kind, class_counts(target, part.classes), len(train), scale[1])
        for target, part in zip(train.targets, task.head_schemes, strict=True)
    ]
    metric = metric_of(config.metric, task.scheme)
    steps = optimizer_steps(len(batches), config.train.accumulate)
    truth = data.images.truth(task.scheme.of_kind(metric.target))[valid]
    precision = choose_precision(config.train.precision, device)
    average = moving_average(model, config.train.ema) if config.train.ema else None
    if config.train.compile and device.type == "cuda":
        # In place, so that names in checkpoints stay the same. A CPU may have no compiler.
        model.compile()
    return Parts(
        model=model,
        average=average,
        task=task,
        metric=metric,
        batches=batches,
        validation=Validation(own.images, own.rows(data.images.take(valid).ids), truth, edges),
        losses=build_losses(config.loss, task.head_schemes, heads),
        regression=config.loss.regression,
        mixer=mixer,
        optimizer=build_optimizer(config.optimizer, model),
        sam=config.optimizer.sam,
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps, config.epochs),
        device=device,
        precision=precision,
        scaler=torch.amp.GradScaler(device.type, enabled=precision is torch.float16),
        micro_batch=micro_batch,
        views=views,
        cut_by=classes_to_cut_by(data, task, train, own, edges) if config.loss.ordinal == "number" else None,
        semi=semi,
    )


def pairs_of(semi: Semi, config: TrialConfig, data: Data, task: Task, views: Sequence[OpenView]) -> Pairs:
    """The images without labels that come with every batch.

    Args:
        views: of the run's own images, then of the extra ones.
    Raises: ConfigError where there are none, and where something else than classes is predicted.
    """
    images = unlabelled_images(data)
    others = [target.name for target in task.scheme.targets if target.kind != "classes"]
    mistakes = [] if len(images) else [Mistake("semi/name", f"{config.semi.name} {NO_UNLABELLED}")]
    mistakes += [Mistake("semi/name", f"{config.semi.name} {FOR_CLASSES}: {', '.join(others)}; write none")] if others else []
    if mistakes:
        raise ConfigError(mistakes)
    pictures = Pictures([seen.images for seen in views], rows_of(images, views), images, config.model.sees_edges)
    return Pairs(
        pictures, semi.ratio, partial(build_augment, semi.weak(config.augment)), partial(build_augment, semi.strong(config.augment))
    )


def classes_to_cut_by(data: Data, task: Task, train: TrainingImages, own: OpenView, edges: bool) -> Validation:
    """The images with the class ids of the ordinal target, to which the cuts of a predicted number are fitted: those that validate; where
    none do, those of the run that train and whose number is known.

    Args:
        own: the view of the run's own images.
    """
    (target,) = next(scheme.targets for scheme in task.head_schemes if ordinal_head(scheme))
    if len(data.split.valid):
        images = data.images.take(data.split.valid)
        ids, classes = images.ids, images.scheme.ids((target.name,), images.labels)[:, 0]
    else:
        known = (train.source == 0) & ~np.isnan(train.numbers)
        # By the true cuts, whatever labels/cuts teaches.
        ids, classes = train.ids[known], np.digitize(train.numbers[known], target.cuts)
    return Validation(own.images, own.rows(ids), classes, edges)


def with_numbers(train: TrainingImages, config: TrialConfig, task: Task) -> tuple[TrainingImages, tuple[float, float]]:
    """The images with the numbers to predict, and their mean and standard deviation. Raises: ConfigError where there are none."""
    if task.scheme.cut is None or np.isnan(train.numbers).all():
        message = "needs a task with a target that is cut from a number, such as years cut into bands; set it to 0"
        raise ConfigError([Mistake("loss/regression", message)])
    numbers = train.numbers
    if config.labels.jitter:
        # Other data sets have caps of their own, or none.
        own, rng = train.source == 0, generator(config.seed, "jitter")
        numbers = numbers.copy()
        numbers[own] = jittered(numbers[own], train.groups[own], config.labels.jitter, rng)
    return replace(train, numbers=numbers), spread_of(numbers)


def spread_of(*given: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the numbers that are known; 1 for a deviation of 0, and 0 and 1 where none is given."""
    if not given:
        return 0.0, 1.0
    (numbers,) = given
    return float(np.nanmean(numbers)), float(np.nanstd(numbers)) or 1.0


def class_counts(target: np.ndarray, classes: int) -> np.ndarray:
    """Images (or, of soft labels, their probabilities added up) per class or tag (classes,)."""
    return target.sum(axis=0) if target.ndim == 2 else np.bincount(target, minlength=classes).astype(float)


def _refuse_what_needs_scores(config: TrialConfig) -> None:
    """Raises: ConfigError where a setting needs validation scores, and there is no validation split."""
    mistakes, why = [], "needs validation scores, and data/fold -1 has no validation split"
    if config.train.patience:
        mistakes.append(Mistake("train/patience", f"{why}; set it to 0"))
    if isinstance(config.schedule, PlateauSettings):
        mistakes.append(Mistake("schedule/name", f"{config.schedule.name} {why}; choose another"))
    if mistakes:
        raise ConfigError(mistakes)


def _words_of(config: TrialConfig, task: Task, scheme: Scheme) -> Words | None:
    """What zero-shot heads are made of, where the heads are to be that.

    Args:
        scheme: of the data.
    Raises: ConfigError where heads are to have their weights at once and are not linear, or would need training after that; and
        what `read_words` raises.
    """
    if config.model.heads == "random":
        return None
    heads = f"model/heads: {config.model.heads}"
    mistakes = _not_of_linear_heads(config, f"is not linear, and {heads} makes linear heads")
    if not POOLS[config.pool.name].own:
        message = f"{config.pool.name} has to be trained, and {heads} makes heads for what the backbone pools; set it to own"
        mistakes.append(Mistake("pool/name", message))
    if config.model.is_probe and config.loss.regression:
        mistakes.append(Mistake("loss/regression", "has to be trained, and this trial ends with heads made at once; set it to 0"))
    words = None
    if config.model.is_zero_shot:
        try:
            words = read_words(config, task, scheme)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return words


def _not_of_linear_heads(config: TrialConfig, why: str) -> list[Mistake]:
    """The settings that ask for other heads than one linear layer each, which is wrong for a reason."""
    return [
        Mistake(path, f"{value} {why}; {fix}")
        for path, value, wrong, fix in (
            ("model/hidden", config.model.hidden, config.model.hidden > 0, "set it to 0"),
            ("model/neck", config.model.neck, config.model.neck != "none", "set it to none"),
            ("loss/ordinal", config.loss.ordinal, config.loss.ordinal != "none", "set it to none"),
            ("loss/name", config.loss.name, isinstance(config.loss, CosineHeadSettings), "choose another"),
        )
        if wrong
    ]


def statistics_to_normalise_by(
    normalize: str | ChannelStatistics, model: ModelConfig, statistics: Mapping[View, ChannelStatistics], view: View
) -> ChannelStatistics:
    """Means and standard deviations that the setting `normalize` stands for, on the scale 0 to 1.

    Args:
        statistics: of the training images, for each view.
    Raises: ConfigError where two backbones disagree about their own.
    """
    if normalize == "dataset":
        return statistics[view]
    if normalize == "backbone":
        own = {pretrained_statistics(name) for name in (model.backbone, model.second) if name}
        if len(own) > 1:
            message = (
                f"{model.backbone} and {model.second} were trained with different means and standard deviations; choose imagenet or dataset"
            )
            raise ConfigError([Mistake("normalize", message)])
        return own.pop()
    return IMAGENET if isinstance(normalize, str) else normalize


def _open(file: ViewFile) -> OpenView:
    try:
        return open_view(file)
    except DataError as error:
        raise ImageError(str(error)) from None
