"""Drawn configurations are built and trained for one step: mistakes show within seconds, and so does the GPU memory that a trial takes."""

import gc
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from search_spaces.schema import Space
from trainables.build import build_parts
from trainables.config import TrialConfig
from trainables.data.sampling import Sampler
from trainables.data.training import Data
from trainables.extensions import Extension, load
from trainables.loop import DivergedError, Parts
from trainables.probe import epochs_of
from trainables.registry import ConfigError, Mistake
from tuner.preflight import refuse


@dataclass(frozen=True)
class Memory:
    """What one training step of the largest configuration takes of a GPU."""

    peak: int  # bytes
    size: int  # bytes of the GPU
    too_large: tuple[int, ...] = ()  # positions of the configurations that do not fit it in one piece


class Gpu:
    """What is read of the GPU while steps are measured."""

    def __init__(self):
        self.device = torch.device("cuda")

    def free(self) -> None:
        """Give back what nothing refers to any more; a model and its optimizer refer to each other."""
        gc.collect()
        torch.cuda.empty_cache()

    def peak(self) -> int:
        """The most bytes that this process has had at a time."""
        return torch.cuda.max_memory_reserved(self.device)

    def size(self) -> int:
        """Bytes of the whole GPU."""
        return torch.cuda.get_device_properties(self.device).total_memory


def rehearse(space: Space, configurations: Iterable[dict[str, Any]], data: Mapping[int, Data], progress: Callable[[int], None]) -> None:
    """Build each configuration and train it on two images for one step.

    Args:
        data: by the fold that validates.
    Raises: SpaceError naming what cannot be built.
    """
    mistakes: list[Mistake] = []
    for values in configurations:
        # That training diverges is an outcome for a trial's record, not a mistake in the space.
        with suppress(DivergedError):
            try:
                config = TrialConfig.from_values(values)
                parts = build_parts(config, data[config.data.fold], torch.device("cpu"))
                next(epochs_of(config, _only(parts, 2)))
            except ConfigError as error:
                mistakes += error.mistakes
        progress(1)
    refuse(space, mistakes)


def measure(configurations: Iterable[dict[str, Any]], step: Callable[[dict[str, Any]], None], gpu: Gpu) -> Memory:
    """Train a step of one configuration after the other, each alone on the GPU.

    One that runs out of memory takes the whole GPU: its trial goes through in smaller parts (see `trainables.loop.next_micro_batch`).

    Args:
        step: builds a configuration and trains it for a step; may raise torch.cuda.OutOfMemoryError.
    """
    peak, too_large = 0, []
    for position, values in enumerate(configurations):
        try:
            step(values)
        except torch.cuda.OutOfMemoryError:
            too_large.append(position)
        # Only here does nothing refer to what the step has built.
        gpu.free()
        peak = max(peak, gpu.peak())
    return Memory(gpu.size() if too_large else peak, gpu.size(), tuple(too_large))


def measure_here(configurations: list[dict[str, Any]], data: Mapping[int, Data], extensions: Iterable[Extension]) -> Memory:
    """Measure training steps on the GPU of this process.

    Args:
        data: by the fold that validates.
        extensions: which the configurations may name.
    """
    load(extensions)
    gpu = Gpu()

    def step(values: dict[str, Any]) -> None:
        config = TrialConfig.from_values(values)
        train_a_step(config, data[config.data.fold], gpu.device)

    return measure(configurations, step, gpu)


def train_a_step(config: TrialConfig, data: Data, device: torch.device) -> None:
    """Build a configuration and train it on one batch of its own size."""
    parts = build_parts(config, data, device)
    # Memory is taken whether or not the loss is a number.
    with suppress(DivergedError):
        next(epochs_of(config, _only(parts, config.train.batch_size)))


def _only(parts: Parts, images: int) -> Parts:
    """The parts with one batch of the first images to train on, and as many to validate."""
    few = slice(images)
    batches = replace(
        parts.batches,
        images=parts.batches.images.take(few),
        batch_size=images,
        sampler=Sampler(len, lambda chosen, rng: np.arange(len(chosen))),
    )
    validation = replace(parts.validation, rows=parts.validation.rows[few], truth=parts.validation.truth[few])
    return replace(parts, batches=batches, validation=validation)
