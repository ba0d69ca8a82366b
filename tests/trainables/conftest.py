"""The demo with few images, for tests that train more than once."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from trainables.config import TrialConfig
from trainables.data.splits import HOLDOUT
from trainables.data.training import Data


def thinned(data: Data) -> Data:
    """Data of which every fourth image trains, and every fourth validates."""
    part = np.full_like(data.split.part, HOLDOUT)
    for rows in (data.split.train[::4], data.split.valid[::4]):
        part[rows] = data.split.part[rows]
    return replace(data, split=replace(data.split, part=part))


@pytest.fixture(scope="session")
def few(data) -> Data:
    """The demo thinned: five batches of 8 to train on, and three images beyond them."""
    return thinned(data)


@pytest.fixture(scope="session")
def small_batches(make_config) -> Callable[..., TrialConfig]:
    """The settings of a tiny trial in batches of 8, with sections changed as in `make_config`."""

    def make(train: dict | None = None, **changes) -> TrialConfig:
        return make_config(train={"batch_size": 8} | (train or {}), **changes)

    return make
