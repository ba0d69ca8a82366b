"""What this machine computes with: the one place that decides which device models are on."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cores_here() -> int:
    """Cores that this process may use: of a shared machine, a batch system gives a job some."""
    cores = os.cpu_count() or 1
    # macOS binds no process to cores, and lacks the function.
    return min(cores, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else cores


def gpus_are_hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES says that no GPU be used; Apple's is hidden by it, too."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def device_here() -> "torch.device":
    """The GPU that torch finds, by CUDA (ROCm goes by that name, too) or Apple's MPS; else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() and not gpus_are_hidden() else "cpu")
