"""In which order, and how often, an epoch shows the training images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from trainables.data.training import TrainingImages
from trainables.registry import Entry, Registry, Section, Share, choose, setting


class SamplerConfig(Section):
    """Which training images an epoch shows, and how often."""

    name: str = setting("how images are drawn, by the classes of the trial's own task", "shuffle")


class WeightedSettings(SamplerConfig):
    """Reads the images' own weights too (data/weights)."""

    power: Share = setting("1 draws all classes equally often, 0 as often as they occur", 1.0)


@dataclass(frozen=True)
class Sampler:
    """How an epoch is drawn. The number of images is the same in every epoch, for the schedule counts steps by it."""

    size: Callable[[TrainingImages], int]  # images an epoch shows
    draw: Callable[[TrainingImages, np.random.Generator], np.ndarray]  # their positions


def shuffled(images: TrainingImages, rng: np.random.Generator) -> np.ndarray:
    """Every image once."""
    return rng.permutation(len(images))


def weighted(images: TrainingImages, rng: np.random.Generator, power: float) -> np.ndarray:
    """Images drawn with replacement, each with probability proportional to its own weight * (1 / images of its class) ** power."""
    weight = images.weights * np.bincount(images.classes)[images.classes].astype(float) ** -power
    return rng.choice(len(images), size=len(images), p=weight / weight.sum())


def oversampled(images: TrainingImages, rng: np.random.Generator) -> np.ndarray:
    """Each class as often as the largest: whole copies of its images, and the rest drawn without replacement."""
    members = members_of_classes(images)
    largest = max(map(len, members))

    def repeated(positions: np.ndarray) -> np.ndarray:
        copies, rest = divmod(largest, len(positions))
        return np.concatenate([np.tile(positions, copies), rng.choice(positions, size=rest, replace=False)])

    return rng.permutation(np.concatenate([repeated(positions) for positions in members]))


def undersampled(images: TrainingImages, rng: np.random.Generator) -> np.ndarray:
    """Each class as often as the smallest: images drawn without replacement."""
    members = members_of_classes(images)
    smallest = min(map(len, members))
    return rng.permutation(np.concatenate([rng.choice(positions, size=smallest, replace=False) for positions in members]))


def one_per_person(images: TrainingImages, rng: np.random.Generator) -> np.ndarray:
    """One random image of each group."""
    order = rng.permutation(len(images))
    _, first = np.unique(images.groups[order], return_index=True)
    return rng.permutation(order[first])


def members_of_classes(images: TrainingImages) -> list[np.ndarray]:
    """The positions of the images of each class that has any."""
    return [np.flatnonzero(images.classes == one) for one in np.unique(images.classes)]


def _per_class(count: Callable[[Iterable[int]], int]) -> Callable[[TrainingImages], int]:
    """The size of an epoch that shows each class as often as `count` of all classes' sizes."""

    def size(images: TrainingImages) -> int:
        members = members_of_classes(images)
        return len(members) * count(map(len, members))

    return size


SAMPLERS: Registry[Entry[SamplerConfig]] = Registry(
    {  # settings -> Sampler
        "shuffle": Entry(SamplerConfig, lambda config: Sampler(len, shuffled)),
        "weighted": Entry(WeightedSettings, lambda config: Sampler(len, partial(weighted, power=config.power))),
        "oversample": Entry(SamplerConfig, lambda config: Sampler(_per_class(max), oversampled)),
        "undersample": Entry(SamplerConfig, lambda config: Sampler(_per_class(min), undersampled)),
        "one_per_person": Entry(SamplerConfig, lambda config: Sampler(lambda images: len(np.unique(images.groups)), one_per_person)),
    },
    Entry,
    SamplerConfig,
)


def build_sampler(config: SamplerConfig) -> Sampler:
    """The sampler that the settings name. Raises: ConfigError."""
    return choose(SAMPLERS, config.name, "sampler/name").build(config)
