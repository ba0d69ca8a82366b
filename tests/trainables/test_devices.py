"""Which device there is. Apple's GPU is only claimed to be there: what torch computes on it, no test of ours has seen."""

import os
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import ROOT
from trainables.devices import cores_here, device_here
from trainables.features import PASS
from trainables.loop import choose_precision
from trainables.versions import device_name
from tuner import training
from tuner.surroundings import gpus_here


@pytest.fixture
def apple(monkeypatch):
    """A Mac with a GPU, as far as torch and Python say."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(sys, "platform", "darwin")


def test_cuda_comes_before_mps_and_mps_before_the_cpu(apple, monkeypatch):
    assert device_here().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_here().type == "cuda"
    for one in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(one, "is_available", lambda: False)
    assert device_here().type == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_not_used(apple, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device_here().type == "cpu" and gpus_here() == 0


def test_on_mps_a_trial_trains_in_fp32_and_is_called_by_its_gpu(apple, monkeypatch):
    device = device_here()
    assert choose_precision("auto", device) is torch.float32 and device.type in PASS
    assert device_name(device).startswith("Apple GPU")


def test_a_trial_has_the_whole_of_apples_gpu(apple, monkeypatch):
    assert gpus_here() == 1
    joined, options = SimpleNamespace(cpus=8, gpus=1), SimpleNamespace(gpus_per_trial=None, cpus_per_trial=None)
    assert training.resources(options, joined, SimpleNamespace(probe_only=False), None) == (8, 1.0)


def test_what_mps_cannot_do_the_cpu_does_and_torch_is_told_before_it_is_imported():
    text = (ROOT / "trainables" / "__init__.py").read_text()
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "1" and "PYTORCH_ENABLE_MPS_FALLBACK" in text
    assert not re.search(r"^(import|from) (?!os)", text, re.MULTILINE)


def test_no_other_place_decides_on_a_device():
    files = [file for package in ("trainables", "tuner", "analysis", "sweepvote") for file in (ROOT / package).rglob("*.py")]
    deciding = [file.relative_to(ROOT).as_posix() for file in files if re.search(r"(cuda|mps)\.is_available", file.read_text())]
    assert deciding == ["trainables/devices.py"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process is bound to cores here")
def test_a_process_that_is_bound_to_one_core_starts_trials_on_that_one(monkeypatch):
    bound = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(bound)})
        assert cores_here() == 1
    finally:
        os.sched_setaffinity(0, bound)
