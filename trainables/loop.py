"""The training loop: `fit` yields after every epoch and knows tensors and callables, nothing of Ray, files or YAML."""

import math
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config import TrainConfig
from trainables.data.batches import TrainBatches, plain_batches
from trainables.data.labels import Task
from trainables.metrics import accuracy, attribute_f1, confusion, macro_f1
from trainables.mixing import Mixer, mix_batch
from trainables.models.assemble import Classifier, to_input
from trainables.schedules import Schedule
from trainables.seeding import generator, seed_for


class DivergedError(ArithmeticError):
    """The loss or the model's answer became infinite or not a number; the text says where."""


@dataclass(frozen=True)
class Validation:
    """The photos that score an epoch."""

    view: np.ndarray  # (rows, height, width, 3) uint8
    rows: np.ndarray  # (n,) their rows
    truth: np.ndarray  # (n,) true joint classes of the task's scheme


@dataclass(frozen=True)
class Parts:
    """What a trial trains with."""

    model: Classifier
    task: Task
    batches: TrainBatches
    validation: Validation
    loss: Callable[[Tensor, Tensor], Tensor]
    mixer: Mixer | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    device: torch.device
    precision: torch.dtype
    scaler: torch.amp.GradScaler  # keeps float16 gradients from vanishing; does nothing in other precisions
    micro_batch: int = 0  # photos per forward and backward pass, 2 or more; 0: the whole batch


@dataclass(frozen=True)
class EpochReport:
    """One line of reports.jsonl."""

    epoch: int  # the first is 1
    train_loss: float
    macro_f1: float  # over all classes of the task's scheme
    accuracy: float
    attribute_f1: dict[str, float]
    lr: float  # of the epoch's last step
    seconds: float  # training and validation
    photos: int  # trained
    images_per_second: float  # trained, validation aside
    peak_memory: float  # MB; of the GPU where there is one, else of the process
    micro_batch: int  # photos per forward and backward pass; 0: whole batches
    best_epoch: int  # so far
    last: bool  # the trial ends here by itself


@dataclass(frozen=True)
class Progress:
    """Where a trial stands beside its tensors."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimizer steps done
    best_epoch: int = 0
    best_score: float = -math.inf

    def after(self, epoch: int, steps: int, score: float) -> "Progress":
        moved = replace(self, epoch=epoch, step=self.step + steps)
        return replace(moved, best_epoch=epoch, best_score=score) if score > self.best_score else moved


@dataclass(frozen=True)
class Epoch:
    """What `fit` yields: the report, validation probabilities (n, classes) per head, and where the trial stands."""

    report: EpochReport
    probabilities: list[np.ndarray]
    progress: Progress


def fit(parts: Parts, settings: TrainConfig, *, epochs: int, seed: int, progress: Progress = Progress()) -> Iterator[Epoch]:
    """Train, yielding after each epoch; the caller reports and saves.

    Every epoch draws its random numbers from the seed and its number alone, so a trial that goes on at epoch k computes what
    an uninterrupted one does. torch's own generator is set too: dropout takes no other.

    Args:
        progress: where to go on; the parts must hold the tensors of that moment.
    Raises: DivergedError when the loss or a validation probability is not finite, PhotoError for a photo that cannot be prepared.
    """
    for epoch in range(progress.epoch + 1, epochs + 1):
        torch.manual_seed(seed_for(seed, "dropout", epoch))
        if parts.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(parts.device)
        start = perf_counter()
        trained = train_epoch(parts, settings, epoch=epoch, first_step=progress.step, rng=generator(seed, "mix", epoch))
        training_seconds = perf_counter() - start
        pass_size = parts.micro_batch or max(64, settings.batch_size)
        valid_batches = plain_batches(parts.validation.view, parts.validation.rows, pass_size, parts.batches.threads)
        probabilities = predict(parts.model, valid_batches, parts.device, parts.precision)
        if not all(np.isfinite(head).all() for head in probabilities):
            # The last step of an epoch shows here first; no loss comes after that of the last epoch.
            raise DivergedError(f"the model answers with no numbers after epoch {epoch}, at learning rate {trained.lr:.1e}")
        truth, scheme = parts.validation.truth, parts.task.scheme
        predicted = parts.task.joint_probabilities(probabilities).argmax(axis=1)
        counts = confusion(truth, predicted, scheme.classes)
        score = float(macro_f1(counts))
        parts.schedule.end_epoch(score)
        progress = progress.after(epoch, trained.steps, score)
        waited = epoch - progress.best_epoch
        report = EpochReport(
            epoch=epoch,
            train_loss=trained.loss,
            macro_f1=score,
            accuracy=float(accuracy(counts)),
            attribute_f1=attribute_f1(scheme, truth, predicted),
            lr=trained.lr,
            seconds=perf_counter() - start,
            photos=trained.photos,
            images_per_second=trained.photos / training_seconds,
            peak_memory=_peak_memory(parts.device),
            micro_batch=parts.micro_batch,
            best_epoch=progress.best_epoch,
            last=epoch == epochs or bool(settings.patience and waited >= settings.patience),
        )
        yield Epoch(report, probabilities, progress)
        if report.last:
            return


@dataclass(frozen=True)
class Trained:
    """What one epoch of training came to."""

    loss: float  # mean over photos
    photos: int
    steps: int  # of the optimizer
    lr: float


def train_epoch(parts: Parts, settings: TrainConfig, *, epoch: int, first_step: int, rng: np.random.Generator) -> Trained:
    """One pass over the training batches; each is mixed as a whole and then goes through the model in micro-batches.

    The gradients of the micro-batches are added up, each weighted by its share of the batch's photos, and their losses too. For
    losses that are a mean over photos, both sums are those of the whole batch. BatchNorm and soft_f1, which look at several
    photos together, see one micro-batch at a time.

    Raises: DivergedError, PhotoError.
    """
    model, optimizer, scaler = parts.model, parts.optimizer, parts.scaler
    classes = [scheme.classes for scheme in parts.task.head_schemes]
    model.train()
    optimizer.zero_grad(set_to_none=True)
    total = photos = steps = 0
    count = len(parts.batches)
    for batch, (photos_uint8, ids) in enumerate(parts.batches.epoch(epoch), start=1):
        lr = parts.schedule.lr(first_step + steps)
        whole = to_input(photos_uint8, parts.device)
        heads = list(ids.to(parts.device, non_blocking=True).unbind(dim=1))
        whole, heads = mix_batch(parts.mixer, whole, heads, classes, rng)
        value = 0.0
        for images, targets in micro_batches(whole, heads, parts.micro_batch):
            with mixed_precision(parts.device, parts.precision):
                logits = model(images)
                loss = sum(parts.loss(head, target) for head, target in zip(logits, targets, strict=True)) * (len(images) / len(whole))
            value += loss.item()
            if not math.isfinite(value):
                place = f"epoch {epoch}, batch {batch} of {count} (step {first_step + steps + 1})"
                raise DivergedError(f"the loss is {value} in {place}, at learning rate {lr:.1e}")
            scaler.scale(loss / gathered(batch, count, settings.accumulate)).backward()
        if batch % settings.accumulate == 0 or batch == count:
            for group in optimizer.param_groups:
                group["lr"] = lr
            if settings.clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
        total, photos = total + value * len(whole), photos + len(whole)
    return Trained(total / photos, photos, steps, lr)


def micro_batches(images: Tensor, targets: Sequence[Tensor], most: int) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """A batch in nearly equal parts of at most `most` photos; 0: in one.

    No part is a single photo, which has no batch statistics; so where `most` is 2, an odd batch has one part of three.

    Args:
        images: (n, c, h, w).
        targets: per head, class ids (n,) or rows (n, classes).
    Returns: the images and the targets of each part, in the batch's order.
    """
    count = max(1, min(math.ceil(len(images) / most), len(images) // 2)) if most else 1
    per_head = zip(*(head.tensor_split(count) for head in targets), strict=True)
    return zip(images.tensor_split(count), per_head, strict=True)


def next_micro_batch(batch_size: int, micro_batch: int) -> int | None:
    """The micro-batch to try when memory ran out with `micro_batch` (0: whole batches); None when none is smaller.

    It is half the photos of a pass so far, rounded up, and at least 2.
    """
    used = min(micro_batch or batch_size, batch_size)
    half = max(2, math.ceil(used / 2))
    return half if half < used else None


def gathered(batch: int, batches: int, accumulate: int) -> int:
    """How many batches the optimizer step of batch `batch` (the first is 1) gathers: the last step of an epoch may have fewer."""
    first = (batch - 1) // accumulate * accumulate
    return min(accumulate, batches - first)


def optimizer_steps(batches: int, accumulate: int) -> int:
    """Optimizer steps an epoch; the last may gather fewer batches."""
    return math.ceil(batches / accumulate)


@torch.inference_mode()
def predict(model: Classifier, batches: Iterable[Tensor], device: torch.device, precision: torch.dtype) -> list[np.ndarray]:
    """Probabilities (n, classes) float32 per head for batches of photos (n, height, width, 3) uint8."""
    model.eval()
    found: list[list[Tensor]] = []
    for batch in batches:
        with mixed_precision(device, precision):
            logits = model(to_input(batch, device))
        found.append([head.float().softmax(dim=1).cpu() for head in logits])
    return [torch.cat(head).numpy() for head in zip(*found, strict=True)]


def mixed_precision(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast to a 16-bit type; nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of the forward pass: `auto` is bfloat16 on GPUs that compute in it, float16 on older ones, float32 on CPUs."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
