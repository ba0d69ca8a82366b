"""In which order, and how often, an epoch shows the training photos."""

from collections.abc import Callable

import numpy as np

from trainables.choices import choose
from trainables.config import SamplerConfig

# classes (n,) of the trial's own task, generator -> positions (n,) of the photos to show
Sampler = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def shuffled(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every photo once."""
    return rng.permutation(len(classes))


def weighted(classes: np.ndarray, rng: np.random.Generator, power: float) -> np.ndarray:
    """Photos drawn with replacement, each with probability proportional to (1 / photos of its class) ** power."""
    weight = np.bincount(classes)[classes].astype(float) ** -power
    return rng.choice(len(classes), size=len(classes), p=weight / weight.sum())


def _weighted(config: SamplerConfig) -> Sampler:
    power = config.power
    return lambda classes, rng: weighted(classes, rng, power)


SAMPLERS: dict[str, Callable[[SamplerConfig], Sampler]] = {"shuffle": lambda config: shuffled, "weighted": _weighted}


def build_sampler(config: SamplerConfig) -> Sampler:
    """The sampler that the settings name. Raises: ConfigError."""
    return choose(SAMPLERS, config.name, "sampler/name")(config)
