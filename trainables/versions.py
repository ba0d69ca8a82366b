"""What decides the results of a trial besides its settings: the code, the libraries, the device."""

import platform
import subprocess
import tomllib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

# torch takes seconds, and the version of the code is read without it.
if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "timm", "albumentations", "numpy", "pillow", "opencv-python-headless", "safetensors", "ray", "optuna")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def device_name(device: "torch.device") -> str:
    """The GPU, or the CPU type with the instructions that torch uses of it: the same type computes the same bits."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({_cpu_type()})"
    return f"CPU ({_cpu_type()}, {torch.backends.cpu.get_cpu_capability()})"


def code_version() -> str:
    """The commit of this project where it is a checkout, with `-dirty` when files differ from it; else its version."""
    root = Path(__file__).parent.parent
    # An environment may lie in a repository of the user's.
    if (root / ".git").exists():
        with suppress(OSError):  # where there is no git
            described = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
            if described.returncode == 0:
                return described.stdout.strip()
    file = root / "pyproject.toml"  # of an archive of the repository
    return tomllib.loads(file.read_text())["project"]["version"] if file.is_file() else version("sweepvote")


def _cpu_type() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
