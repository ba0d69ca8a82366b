"""The Ray cluster: our own on this machine, or one at an address."""

import logging
import math
import os
import socket
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path

import ray

GPU_CONTEXT = 0.7e9  # bytes that CUDA and cuDNN take for a process before the first tensor
OBJECT_STORE = 256 * 2**20  # bytes; trials share photos through mapped files, not through Ray

_held_back = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)


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
    _hush()
    options = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        # Without "local" Ray joins whatever cluster it finds, or hangs on a dead one.
        context = ray.init(
            address="local", num_cpus=os.cpu_count(), object_store_memory=OBJECT_STORE, include_dashboard=dashboard, **options
        )
    else:
        try:
            _knock(address)
            context = ray.init(address=address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise ClusterError(f"no Ray cluster answers at {address} ({error}). Start one with: ray start --head") from None
    resources = ray.cluster_resources()
    url = context.dashboard_url
    return Cluster(int(resources.get("CPU", 1)), int(resources.get("GPU", 0)), f"http://{url}" if url else None)


def _knock(address: str) -> None:
    """Raises: OSError where nobody listens. Ray itself would keep trying for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def stop() -> None:
    """Leave the cluster; one that `start` made here ends."""
    ray.shutdown()


def _hush() -> None:
    """Hold back what libraries log until `log_to` says which file it belongs to: one table is printed, and it is ours."""
    root = logging.getLogger()
    if _held_back not in root.handlers:
        root.addHandler(_held_back)
    # Ray clears its own logger's handlers when told not to configure logging, so its words go up to the root.
    logging.getLogger("ray").propagate = True
    logging.captureWarnings(True)


def log_to(file: Path) -> None:
    """Send Ray's words, those held back first, to a file."""
    writer = logging.FileHandler(file)
    writer.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _held_back.setTarget(writer)
    _held_back.flush()
    _held_back.capacity = 1  # from now on every word at once


def share_of_gpu(peak: int, total: int) -> float:
    """The share of a GPU that a trial should ask for, so that as many as fit run side by side.

    Args:
        peak: bytes that the largest drawn configuration used in a training step.
        total: bytes of the GPU.
    Returns: 1/n for the largest n whose trials fit with a tenth to spare; 1 when only one does.
    """
    need = peak * 1.1 + GPU_CONTEXT
    return 1 / max(1, math.floor(total * 0.9 / need))
