"""Which GPUs this machine has, without importing torch where there can be none."""

import os
from pathlib import Path

# Where Linux shows what torch can drive: NVIDIA's cards, those of its small boards and of Windows' subsystem, and AMD's.
SHOWN = ("nvidia*", "nvhost*", "nvmap", "nvgpu", "dxg", "kfd")


def gpus_here(devices: Path = Path("/dev")) -> int:
    """GPUs of this machine that torch can use.

    Args:
        devices: the system's folder of devices.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not any(any(devices.glob(name)) for name in SHOWN):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
