"""Random numbers: generators made from a seed and words that say what they are for, so no two uses share a stream."""

from zlib import crc32

import numpy as np


def seed_for(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as `seed_for(7, "augment", epoch, batch)`."""
    words = [crc32(word.encode()) if isinstance(word, str) else word for word in purpose]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator for one purpose; the same arguments give the same numbers."""
    return np.random.default_rng(seed_for(seed, *purpose))
