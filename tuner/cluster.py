"""The Ray cluster: our own on this machine, or one at an address."""

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import ray

GPU_CONTEXT = 0.7e9  # bytes that CUDA and cuDNN take for a process before the first tensor
OBJECT_STORE = 256 * 2**20  # bytes; trials share photos through mapped files, not through Ray


@dataclass(frozen=True)
class Cluster:
    """What there is to run on."""

    cpus: int
    gpus: int
    dashboard: str | None  # address of Ray's dashboard


class ClusterError(ValueError):
    """A cluster that cannot be joined."""


def start(address: str | None, *, dashboard: bool) -> Cluster:
    """Start Ray here, or join the cluster at `address`. Raises: ClusterError when it does not answer."""
    options = {"log_to_driver": False, "logging_level": logging.WARNING, "include_dashboard": dashboard}
    if address is None:
        # Without "local" Ray joins whatever cluster it finds, or hangs on a dead one.
        context = ray.init(address="local", num_cpus=os.cpu_count(), object_store_memory=OBJECT_STORE, **options)
    else:
        try:
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClusterError(f"no Ray cluster answers at {address} ({error}). Start one with: ray start --head") from None
    resources = ray.cluster_resources()
    url = context.dashboard_url
    return Cluster(int(resources.get("CPU", 1)), int(resources.get("GPU", 0)), f"http://{url}" if url else None)


def log_to(file: Path) -> None:
    """Send Ray's own words to a file: one table is printed, and it is ours."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("ray", "ray.tune", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.captureWarnings(True)


def share_of_gpu(peak: int, total: int) -> float:
    """The share of a GPU that a trial should ask for, so that as many as fit run side by side.

    Args:
        peak: bytes that the largest drawn configuration used in a training step.
        total: bytes of the GPU.
    Returns: 1/n for the largest n whose trials fit with a tenth to spare; 1 when only one does.
    """
    need = peak * 1.1 + GPU_CONTEXT
    return 1 / max(1, math.floor(total * 0.9 / need))
