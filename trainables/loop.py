"""The training loop: `fit` yields after every epoch and knows tensors and callables, but not Ray, files or YAML."""

import math
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from trainables.config import TrainConfig
from trainables.data.batches import Batch, TrainBatches, plain_batches
from trainables.data.targets import Kind, Task
from trainables.data.training import count_shown
from trainables.data.views import OpenView
from trainables.losses import Loss
from trainables.metrics import Metric, accuracy_of, target_scores
from trainables.mixing import Mixer, mix_batch
from trainables.models.assemble import Answer, Classifier, to_input
from trainables.optimizers import climbed
from trainables.record import EpochReport
from trainables.schedules import Schedule
from trainables.seeding import generator, seed_for
from trainables.semi import Semi

Item = TypeVar("Item")


class DivergedError(ArithmeticError):
    """The loss or the model's answer became infinite or not a number; the text says where."""


@dataclass(frozen=True)
class Validation:
    """The images that score an epoch; none without a validation split."""

    view: np.ndarray  # (rows, height, width, 3) uint8
    rows: np.ndarray  # (n,) their rows
    truth: np.ndarray  # of the task's targets that the metric scores
    edges: bool = False  # whether the model takes a channel of edges


@dataclass(frozen=True)
class Parts:
    """What a trial trains with."""

    model: Classifier
    average: AveragedModel | None  # the moving average of the model's weights, where one is asked for
    task: Task
    metric: Metric
    batches: TrainBatches
    validation: Validation
    losses: Sequence[Loss]  # one per head
    regression: float  # weight of the distance between predicted and true number; 0: no number is predicted
    mixer: Mixer | None
    optimizer: torch.optim.Optimizer
    sam: float  # radius of sharpness-aware minimization; 0 is off
    schedule: Schedule
    device: torch.device
    precision: torch.dtype
    scaler: torch.amp.GradScaler  # keeps float16 gradients from vanishing; does nothing in other precisions
    micro_batch: int = 0  # images per forward and backward pass, 2 or more; 0: the whole batch
    semi: Semi | None = None  # how images without labels are learned from, where some come with the batches
    views: Sequence[OpenView] = ()  # of the run's own images, then of the extra ones
    cut_by: Validation | None = None  # whose truth, the class ids of an ordinal target, the cuts of the predicted number are fitted to

    @property
    def evaluated(self) -> Classifier:
        """The model that is validated and kept."""
        # pyrefly: ignore[bad-return]  AveragedModel holds a copy of the model, which torch annotates as any module
        return self.average.module if self.average else self.model


@dataclass(frozen=True)
class Progress:
    """How far a trial is, apart from its tensors."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimizer steps done
    best_epoch: int = 0
    best_score: float | None = None

    def after(self, epoch: int, steps: int, score: float | None, metric: Metric) -> "Progress":
        """The progress after one more epoch; without a score, the newest epoch counts as the best."""
        moved = replace(self, epoch=epoch, step=self.step + steps)
        if score is None:
            return replace(moved, best_epoch=epoch)
        if self.best_score is None or metric.sign * score > metric.sign * self.best_score:
            return replace(moved, best_epoch=epoch, best_score=score)
        return moved


@dataclass(frozen=True)
class Epoch:
    """What `fit` yields: the report, validation predictions (n, columns) per head, and the progress."""

    report: EpochReport
    probabilities: list[np.ndarray]
    progress: Progress


def fit(
    parts: Parts,
    settings: TrainConfig,
    *,
    epochs: int,
    seed: int,
    progress: Progress = Progress(),
    known_scores: Sequence[float | None] = (),
) -> Iterator[Epoch]:
    """Train, yielding after each epoch; the caller reports and saves.

    Every epoch draws its random numbers from the seed and its number alone, so a trial that resumes at epoch k computes what
    an uninterrupted one does. torch's own generator is set too: dropout takes no other.

    Args:
        progress: from where to resume; the parts must hold the tensors of that moment.
        known_scores: scores of the first epochs that stand, though a GPU may compute other last bits where it does such an epoch again.
    Raises: DivergedError when the loss, a weight or a validation probability is not finite, ImageError for an image that cannot be
        prepared.
    """
    for epoch in range(progress.epoch + 1, epochs + 1):
        torch.manual_seed(seed_for(seed, "dropout", epoch))
        if parts.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(parts.device)
        start = perf_counter()
        trained = train_epoch(parts, settings, epoch=epoch, first_step=progress.step, rng=generator(seed, "mix", epoch))
        training_seconds = perf_counter() - start
        pass_size = parts.micro_batch or max(64, settings.batch_size)
        fit_cuts(parts, pass_size)
        probabilities = validate(parts, pass_size)
        if not all(tensor.isfinite().all() for tensor in (*map(torch.from_numpy, probabilities), *parts.evaluated.parameters())):
            # The last step of an epoch shows here first; no loss comes after that of the last epoch.
            raise DivergedError(f"predictions or weights are NaN or infinite after epoch {epoch}, at learning rate {trained.lr:.1e}")
        scores = Scores.of(parts, probabilities)
        if epoch <= len(known_scores):
            scores = replace(scores, score=known_scores[epoch - 1])
        if scores.score is not None:
            parts.schedule.end_epoch(parts.metric.sign * scores.score)
        progress = progress.after(epoch, trained.steps, scores.score, parts.metric)
        order = parts.batches.order(epoch)
        repeats = np.bincount(order)
        waited = epoch - progress.best_epoch
        report = EpochReport(
            epoch=epoch,
            train_loss=trained.loss,
            score=scores.score,
            accuracy=scores.accuracy,
            target_scores=scores.target_scores,
            lr=trained.lr,
            seconds=perf_counter() - start,
            photos=trained.images,
            distinct=int((repeats > 0).sum()),
            largest_repeat=int(repeats.max()),
            images_per_second=trained.images / training_seconds,
            peak_memory=peak_memory(parts.device),
            micro_batch=parts.micro_batch,
            best_epoch=progress.best_epoch,
            last=epoch == epochs or bool(settings.patience and waited >= settings.patience),
            shown=count_shown(parts.batches.images, order, parts.task),
        )
        yield Epoch(report, probabilities, progress)
        if report.last:
            return


@dataclass(frozen=True)
class Scores:
    """The scores of the validation images."""

    score: float | None = None
    accuracy: float | None = None
    target_scores: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Parts, probabilities: list[np.ndarray]) -> Self:
        """The scores of the validation images; none without a validation split."""
        truth, scheme = parts.validation.truth, parts.task.scheme
        if not len(truth):
            return cls()
        kind = parts.metric.target
        answer = parts.task.answer(probabilities, kind)
        return cls(
            score=parts.metric.score(truth, answer),
            accuracy=accuracy_of(parts.metric, truth, answer),
            target_scores=target_scores(parts.metric, scheme.of_kind(kind), truth, answer),
        )


def validate(parts: Parts, pass_size: int) -> list[np.ndarray]:
    """Predictions (n, columns) float32 per head for the validation images, which go through the model so many at a time."""
    valid = parts.validation
    batches = plain_batches(valid.view, valid.rows, pass_size, parts.batches.threads, valid.edges)
    found = predict(parts.evaluated, batches, parts.device, parts.precision)
    return found or [np.empty((0, part.classes), dtype=np.float32) for part in parts.task.head_schemes]


def fit_cuts(parts: Parts, pass_size: int) -> None:
    """Fit the cuts that make classes of the predicted number, where the model has some."""
    cuts, given = parts.evaluated.heads.cuts, parts.cut_by
    if cuts is None or given is None or not len(given.rows):
        return
    batches = plain_batches(given.view, given.rows, pass_size, parts.batches.threads, given.edges)
    found = [answer.number for answer in answers(parts.evaluated, batches, parts.device, parts.precision) if answer.number is not None]
    cuts.fit(torch.cat(found).float().cpu().numpy(), given.truth)
    if parts.average and (own := parts.model.heads.cuts):
        own.load_state_dict(cuts.state_dict())


@dataclass(frozen=True)
class Trained:
    """The outcome of one epoch of training."""

    loss: float  # mean over images
    images: int
    steps: int  # of the optimizer
    lr: float  # of the last step


@dataclass(frozen=True)
class Step:
    """A step of the optimizer that is to be taken."""

    batches: Sequence[Batch]  # whose gradients it gathers
    number: int  # over the whole trial, from 1
    lr: float
    epoch: int
    first: int  # number of its first batch in the epoch, from 1


def train_epoch(parts: Parts, settings: TrainConfig, *, epoch: int, first_step: int, rng: np.random.Generator) -> Trained:
    """One pass over the training batches, some of which may share a step of the optimizer.

    Args:
        first_step: steps of the optimizer before this epoch.
        rng: of the mixing.
    Raises: DivergedError, ImageError.
    """
    parts.model.begin_epoch(epoch)
    parts.optimizer.zero_grad(set_to_none=True)
    total = images = steps = 0
    lr = 0.0
    for batches in in_groups(parts.batches.epoch(epoch), settings.accumulate):
        lr = parts.schedule.lr(first_step + steps)
        step = Step(batches, number=first_step + steps + 1, lr=lr, epoch=epoch, first=steps * settings.accumulate + 1)
        for group in parts.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        # The second pass of sharpness-aware minimization sees the batches mixed as the first did.
        again = deepcopy(rng) if parts.sam else rng
        losses = add_gradients(parts, step, rng)
        if parts.sam:
            with climbed(parts.model, parts.sam):
                parts.optimizer.zero_grad(set_to_none=True)
                add_gradients(parts, step, again)
        change_weights(parts, settings.clip)
        total += sum(loss * len(batch.images) for loss, batch in zip(losses, batches, strict=True))
        images += sum(len(batch.images) for batch in batches)
        steps += 1
    return Trained(total / images, images, steps, lr)


def add_gradients(parts: Parts, step: Step, rng: np.random.Generator) -> list[float]:
    """Add up the gradients of a step's batches, each of which counts alike; returns the loss of each.

    A batch is mixed as a whole and goes through the model in micro-batches, whose losses and gradients are weighted by their shares
    of its images. For losses that are a mean over images, both sums are those of the whole batch. BatchNorm, and losses that look at
    several images together, see one micro-batch at a time.

    Raises: DivergedError.
    """
    losses = []
    for number, batch in enumerate(step.batches, start=step.first):
        mixed = _mixed(parts, batch, rng)
        loss = 0.0
        for some in micro_batches(mixed, parts.micro_batch):
            with mixed_precision(parts.device, parts.precision):
                part = batch_loss(parts, some) * (len(some.images) / len(mixed.images))
            loss += part.item()
            if not math.isfinite(loss):
                place = f"epoch {step.epoch}, batch {number} of {len(parts.batches)} (step {step.number})"
                raise DivergedError(f"the loss is {loss} in {place}, at learning rate {step.lr:.1e}")
            parts.scaler.scale(part / len(step.batches)).backward()
        losses.append(loss)
    return losses


@dataclass(frozen=True)
class Mixed:
    """A batch on the device, as it goes through the model."""

    images: Tensor  # (n, channels, height, width) float32
    targets: list[Tensor]  # per head: class ids (n,) or rows (n, classes)
    numbers: Tensor  # (n,) float32; NaN where unknown
    unlabelled: tuple[Tensor, Tensor] | None = None  # images without labels, weakly and strongly augmented


def _mixed(parts: Parts, batch: Batch, rng: np.random.Generator) -> Mixed:
    partners = _on_device(parts, batch.partners) if batch.partners else None
    classes = [scheme.classes for scheme in parts.task.head_schemes]
    mixed = Mixed(*mix_batch(parts.mixer, *_on_device(parts, batch), classes, rng, partners))
    if batch.unlabelled is None:
        return mixed
    weak, strong = (to_input(images, parts.device) for images in batch.unlabelled)
    return replace(mixed, unlabelled=(weak, strong))


def _on_device(parts: Parts, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor]:
    """Images, targets and numbers."""
    images = to_input(batch.images, parts.device)
    targets = [target.to(parts.device, non_blocking=True) for target in batch.targets]
    return images, targets, batch.numbers.to(parts.device, non_blocking=True)


def batch_loss(parts: Parts, batch: Mixed) -> Tensor:
    """The loss of labelled images and, where some come with them, the weighted one of images without labels; a mean over images each.

    All go through the model at once, so that BatchNorm sees them together.
    """
    if parts.semi is None or batch.unlabelled is None:
        return total_loss(parts, parts.model(batch.images), batch.targets, batch.numbers)
    count, pairs = len(batch.images), len(batch.unlabelled[0])
    answer = parts.model(torch.cat([batch.images, *batch.unlabelled]))
    number = None if answer.number is None else answer.number[:count]
    loss = total_loss(parts, Answer([logits[:count] for logits in answer.logits], number), batch.targets, batch.numbers)
    for logits in answer.logits:
        _, weak, strong = logits.split([count, pairs, pairs])
        loss = loss + parts.semi.weight * parts.semi.loss(weak, strong)
    return loss


def total_loss(parts: Parts, answer: Answer, targets: Sequence[Tensor], numbers: Tensor) -> Tensor:
    """The losses of all heads added up, and the weighted distance of predicted numbers from true ones, 0 where these are unknown.

    A mean over images, if the losses are.
    """
    first, *others = (loss(logits, target) for loss, logits, target in zip(parts.losses, answer.logits, targets, strict=True))
    loss = sum(others, start=first)
    if parts.regression and answer.number is not None:
        known = ~numbers.isnan()
        distance = F.smooth_l1_loss(answer.number.float()[known], numbers[known], reduction="sum")
        loss = loss + parts.regression * distance / len(numbers)
    return loss


def change_weights(parts: Parts, clip: float) -> None:
    """Change the weights by the gradients that are there, and forget these."""
    if clip:
        parts.scaler.unscale_(parts.optimizer)
        torch.nn.utils.clip_grad_norm_(parts.model.parameters(), clip)
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    parts.optimizer.zero_grad(set_to_none=True)
    if parts.average:
        parts.average.update_parameters(parts.model)


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may have fewer."""
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def micro_batches(batch: Mixed, most: int) -> Iterator[Mixed]:
    """A batch in nearly equal parts of at most `most` labelled images, in its order; 0: in one.

    No part is a single image, which has no batch statistics; so where `most` is 2, an odd batch has one part of three.
    """
    images = len(batch.images)
    count = max(1, min(math.ceil(images / most), images // 2)) if most else 1
    per_head = zip(*(target.tensor_split(count) for target in batch.targets), strict=True)
    pairs = zip(*(one.tensor_split(count) for one in batch.unlabelled), strict=True) if batch.unlabelled else [None] * count
    parts = zip(batch.images.tensor_split(count), per_head, batch.numbers.tensor_split(count), pairs, strict=True)
    return (Mixed(images, list(targets), numbers, pair) for images, targets, numbers, pair in parts)


def next_micro_batch(batch_size: int, micro_batch: int) -> int | None:
    """The micro-batch to try when memory ran out with `micro_batch` (0: whole batches); None when none is smaller.

    It is half the images of a pass so far, rounded up, and at least 2.
    """
    used = min(micro_batch or batch_size, batch_size)
    half = max(2, math.ceil(used / 2))
    return half if half < used else None


def optimizer_steps(batches: int, accumulate: int) -> int:
    """Optimizer steps an epoch; the last may gather fewer batches."""
    return math.ceil(batches / accumulate)


@torch.inference_mode()
def predict(model: Classifier, batches: Iterable[Tensor], device: torch.device, precision: torch.dtype) -> list[np.ndarray]:
    """Predictions (n, columns) float32 per head for batches of images (n, height, width, 3) uint8: probabilities of its classes or tags, or
    the number."""
    found: list[list[Tensor]] = []
    for answer in answers(model, batches, device, precision):
        found.append([activated(head, kind).cpu() for head, kind in zip(answer.logits, model.heads.kinds, strict=True)])
    return [torch.cat(head).numpy() for head in zip(*found, strict=True)]


@torch.inference_mode()
def answers(model: Classifier, batches: Iterable[Tensor], device: torch.device, precision: torch.dtype) -> Iterator[Answer]:
    """What the model says of each batch, as `predict` takes them."""
    model.eval()
    for batch in batches:
        with mixed_precision(device, precision):
            answer = model(to_input(batch, device))
        yield answer


def activated(logits: Tensor, kind: Kind) -> Tensor:
    """What a head predicts (n, columns) float32 of its logits."""
    logits = logits.float()
    return logits.softmax(dim=1) if kind == "classes" else logits.sigmoid() if kind == "tags" else logits


def mixed_precision(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast to a 16-bit type; nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of the forward pass: `auto` is bfloat16 on GPUs that compute in it, float16 on older ones, float32 elsewhere."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def peak_memory(device: torch.device) -> float:
    """MB of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # Linux counts in kB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
