"""The Ray cluster: our own on this machine, or one at an address."""

import ctypes
import logging
import math
import os
import secrets
import shlex
import signal
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.commands import started
from trainables.data.shipping import Piece, read_piece
from trainables.data.views import View, ViewFile, open_view
from trainables.devices import cores_here
from trainables.extensions import Extension, ExtensionError, load
from trainables.record import RunError
from trainables.storage import Folder
from tuner.surroundings import OBJECT_STORE, TOKEN, NoPlaceError, Surroundings, look, short_folder, why_not

LOOK = 5.0  # seconds between two checks of which nodes are alive
ANSWER = 120.0  # seconds that a node has to start a process and answer
GPU_CONTEXT = 0.7e9  # bytes that CUDA and cuDNN take for a process before the first tensor

_ours = ExitStack()  # what stands in for places that Ray would choose and cannot use

# A process has one handler of a signal, and Python lets only its main thread ask for it; these two ask below Python.
_get_handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(("PyOS_getsig", ctypes.pythonapi))
_set_handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(("PyOS_setsig", ctypes.pythonapi))

_held_back = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)


@dataclass(frozen=True)
class Cluster:
    """What there is to run on."""

    cpus: int  # of the nodes that have GPUs, where some have
    gpus: int
    dashboard: str | None  # address of Ray's dashboard
    token: str = "ray get-auth-token"  # the command that prints the token that the dashboard asks for


class ClusterError(RunError):
    """A cluster that cannot be joined, or a node that cannot run trials."""


class Slots:
    """How many trials can run at a time on the nodes that there are now: some may have died, others joined."""

    def __init__(self, cpus: int, gpus: float, *, waiting: int = 0):
        """
        Args:
            cpus, gpus: what each trial takes.
            waiting: trials beyond those that there is room for; an autoscaler adds a node only for work that waits.
        """
        self.cpus, self.gpus, self._waiting = cpus, gpus, waiting
        self._count, self._looked = 1, -math.inf

    def __call__(self) -> int:
        if monotonic() - self._looked > LOOK:
            self._count, self._looked = sum(self._on(node["Resources"]) for node in alive_nodes()), monotonic()
        return max(1, self._count + self._waiting)

    def _on(self, has: Mapping[str, float]) -> int:
        by_gpus = has.get("GPU", 0) / self.gpus if self.gpus else math.inf
        return int(min(has.get("CPU", 0) // self.cpus, by_gpus + 1e-6))


class ViewServer:
    """Sends decoded images of this node to others, in pieces; an actor."""

    def __init__(self, files: Sequence[ViewFile]):
        # Open from the start, so that they stay even if the cache is emptied.
        self._views = [(file.view, open_view(file)) for file in files]

    def piece(self, view: View, contents: Sequence[str]) -> Piece:
        return read_piece(next(seen for seen_as, seen in self._views if seen_as == view and seen.row.keys() >= set(contents)), contents)


class Starting:
    """Ray, started in a thread of its own while this process reads images and imports what it needs."""

    def __init__(self, address: str | None, *, dashboard: bool, gpus: int | None = None):
        """Begin. See `start`."""
        self._done: Future[Cluster] = Future()
        self._left = Event()
        # Ray's core puts a handler below Python in place of ours, which aborts the process three seconds later.
        ours = _get_handler(signal.SIGTERM)

        def run() -> None:
            try:
                joined = start(address, dashboard=dashboard, gpus=gpus)
            except BaseException as error:
                self._done.set_exception(error)
                return
            finally:
                _set_handler(signal.SIGTERM, ours)
            self._done.set_result(joined)
            # Linux ends Ray's servers with the thread that has started them, not with its process: prctl(2), PR_SET_PDEATHSIG.
            self._left.wait()

        Thread(target=run, name="starting Ray", daemon=True).start()

    def join(self) -> Cluster:
        """Wait until Ray is up. Raises: ClusterError when it does not come up."""
        return self._done.result()

    def stop(self) -> None:
        """Wait until it is up, and leave it: what is stopped half-way leaves servers behind."""
        wait([self._done])
        stop()
        self._left.set()


def start(address: str | None, *, dashboard: bool, gpus: int | None = None) -> Cluster:
    """Start Ray here, or join the cluster at `address`.

    Args:
        gpus: of this machine; None lets Ray look.
    Raises: ClusterError when it does not answer.
    """
    _hold_back_logs()
    options = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        context = _start_here(num_gpus=gpus, include_dashboard=dashboard, **options)
    elif address.startswith("ray://"):
        raise ClusterError(f"--address {address} is for Ray Client; run this command on a node of the cluster, with --address auto")
    else:
        try:
            _check_listening(address)
            context = ray.init(address=address, **options)
        except AuthenticationError:
            fix = "copy ~/.ray/auth_token from its head node, and set RAY_AUTH_MODE=token"
            raise ClusterError(f"the Ray cluster at {address} needs its token: {fix}") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise ClusterError(f"no Ray cluster answers at {address} ({error}). Start one with: ray start --head") from None
    nodes = [node["Resources"] for node in alive_nodes()]
    with_gpus = [has for has in nodes if has.get("GPU")]
    cpus = sum(has.get("CPU", 0) for has in with_gpus or nodes)
    url, own_token = context.dashboard_url, os.environ.get(TOKEN)
    token = started(Cluster.token)
    token = f"{TOKEN}={shlex.quote(own_token)} {token}" if own_token else token
    return Cluster(max(1, int(cpus)), int(sum(has["GPU"] for has in with_gpus)), f"http://{url}" if url else None, token)


def _start_here(**options: Any) -> Any:
    try:
        around = _own_folder(look())
        if around.needs_other_memory:
            options["_plasma_directory"] = str(around.temp)
        # Without "local" Ray joins whatever cluster it finds, or hangs on a dead one.
        return ray.init(address="local", num_cpus=cores_here(), object_store_memory=OBJECT_STORE, **options)
    except NoPlaceError as error:
        raise ClusterError(f"Ray cannot start on this machine:\n{error}") from None
    except Exception as error:  # Ray has no kind of its own for this
        words = why_not(look(), str(error))
        stop()
        raise ClusterError(words) from error


def _own_folder(around: Surroundings) -> Surroundings:
    """A folder of our own until `stop`, where Ray could not use the one that it would choose. Raises: NoPlaceError."""
    if not around.needs_own_folder:
        return around
    folder = _ours.enter_context(short_folder(around))
    instead = {"RAY_TMPDIR": folder, "TMPDIR": folder}  # the second for Ray's servers, which have sockets of their own
    if around.needs_own_token:
        token = Path(folder) / "auth_token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        instead[TOKEN] = str(token)
    for name, value in instead.items():
        _ours.callback(_set, name, os.environ.get(name))
        _set(name, value)
    return look()


def _set(name: str, value: str | None) -> None:
    """Set an environment variable, or remove it."""
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value


def alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(run: Folder, extensions: Sequence[Extension] = ()) -> None:
    """Check that a process on every other node can import this project, execute the extensions and read the run's folder.

    Raises: ClusterError naming each node that cannot.
    """
    here = ray.get_runtime_context().get_node_id()
    asked = {
        (node["NodeID"], node["NodeManagerHostname"]): ray.remote(num_cpus=0, max_retries=0)(_can_read)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(run, extensions)
        for node in alive_nodes()
        if node["NodeID"] != here
    }
    mistakes = []
    for (_, name), answer in asked.items():
        try:
            if not ray.get(answer, timeout=ANSWER):
                mistakes.append(f"node {name} cannot read {run}: give --storage a folder that all nodes share, or an object store")
        except RayTaskError as error:
            if not isinstance(cause := error.cause, ExtensionError):
                raise
            mistakes.append(f"node {name}: {cause}; install there what the file needs")
        except RayError as error:
            why = str(error).strip().splitlines()[-1]
            mistakes.append(f"node {name} cannot run a trial ({why}); it needs the same checkout and environment as this machine")
    if mistakes:
        raise ClusterError("\n".join(mistakes))


def serve_views(files: Sequence[ViewFile]) -> Any:
    """An actor on this node whose `piece(view, contents)` other nodes may ask."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(ViewServer).options(scheduling_strategy=here).remote(files)


def _can_read(run: Folder, extensions: Sequence[Extension]) -> bool:
    load(extensions)
    return (run / "run.json").is_file()


def _check_listening(address: str) -> None:
    """Raises: OSError where no server listens. Ray itself would keep trying for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def stop() -> None:
    """Leave the cluster; one that `start` made here ends."""
    ray.shutdown()
    _ours.close()


def _hold_back_logs() -> None:
    """Hold back what libraries log until `log_to` says which file it belongs to: one table is printed, and it is ours."""
    root = logging.getLogger()
    if _held_back not in root.handlers:
        root.addHandler(_held_back)
    # Ray clears its own logger's handlers when asked not to configure logging, so its messages go up to the root.
    logging.getLogger("ray").propagate = True
    logging.captureWarnings(True)
    # A log that has no room must not fill the terminal with its complaints.
    logging.raiseExceptions = False


def log_to(file: Path) -> None:
    """Send Ray's log messages, those held back first, to a file."""
    writer = logging.FileHandler(file)
    writer.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _held_back.setTarget(writer)
    _held_back.flush()
    _held_back.capacity = 1  # from now on every message at once


def share_of_gpu(peak: int, total: int) -> float:
    """The share of a GPU that a trial should ask for, so that as many as fit run in parallel.

    Args:
        peak: bytes that the largest drawn configuration used in a training step.
        total: bytes of the GPU.
    Returns: 1/n for the largest n whose trials fit with a tenth to spare; 1 when only one does.
    """
    need = peak * 1.1 + GPU_CONTEXT
    return 1 / max(1, math.floor(total * 0.9 / need))
