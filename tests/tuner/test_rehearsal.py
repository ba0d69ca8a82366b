import weakref

import pytest
import torch

from tests.conftest import TINY
from trainables.config import TrialConfig
from tuner import cluster, rehearsal
from tuner.rehearsal import Gpu, Memory, measure, train_a_step

GB = 10**9


class Pretended(Gpu):
    """A GPU of 80 GB whose peak is what is said; what is freed is freed for real."""

    def __init__(self, peaks=(3 * GB,)):
        self.device = torch.device("cpu")
        self._peaks = iter(peaks)

    def peak(self) -> int:
        return next(self._peaks)

    def size(self) -> int:
        return 80 * GB


def out_of_memory(values):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_the_largest_configuration_says_how_much_memory_a_trial_takes():
    assert measure([{}, {}, {}], lambda values: None, Pretended([2 * GB, 9 * GB, 9 * GB])) == Memory(9 * GB, 80 * GB)


def test_a_configuration_that_does_not_fit_takes_the_whole_gpu_and_the_others_are_measured_still():
    seen = []

    def step(values):
        seen.append(values)
        if values["batch"] > 100:
            out_of_memory(values)

    memory = measure([{"batch": 128}, {"batch": 32}, {"batch": 256}], step, Pretended([79 * GB] * 3))
    assert [values["batch"] for values in seen] == [128, 32, 256]
    assert memory == Memory(80 * GB, 80 * GB, too_large=(0, 2))
    assert cluster.share_of_gpu(memory.peak, memory.size) == 1


@pytest.mark.parametrize("fits", [True, False])
def test_the_model_of_one_configuration_is_gone_before_the_next_is_built(data, monkeypatch, fits):
    models, alive = [], []
    build = rehearsal.build_parts

    def watched(*args, **options):
        alive.append(sum(model() is not None for model in models))
        parts = build(*args, **options)
        models.append(weakref.ref(parts.model))
        return parts

    def step(values):
        train_a_step(TrialConfig.from_values(values), data, torch.device("cpu"))

    monkeypatch.setattr(rehearsal, "build_parts", watched)
    if not fits:
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: out_of_memory(None))
    memory = measure([TINY] * 3, step, Pretended([GB] * 3))
    assert alive == [0, 0, 0] and len(models) == 3 and all(model() is None for model in models)
    assert memory.too_large == (() if fits else (0, 1, 2))
