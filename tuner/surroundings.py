"""What a search needs of this machine: its GPUs, and for Ray's start folders, memory and ports; what is wrong there, and how to fix it."""

import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from trainables.devices import device_here, gpus_are_hidden

OBJECT_STORE = 256 * 2**20  # bytes; trials share images through mapped files, not through Ray
LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of a UNIX socket's path, see unix(7)
# What Ray puts between its folder and the socket with the longest name, with the largest process id of Linux.
SOCKET = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # folders that are there for everybody, by a short name
SHARED_MEMORY = Path("/dev/shm")
GCS_PORT = "RAY_GCS_SERVER_PORT"
TOKEN = "RAY_AUTH_TOKEN_PATH"
# Where Linux shows what torch can drive: NVIDIA's cards, those of its small boards and of Windows' subsystem, and AMD's.
SHOWN = ("nvidia*", "nvhost*", "nvmap", "nvgpu", "dxg", "kfd")


class NoPlaceError(ValueError):
    """Ray has no folder for its files on this machine; the text says why, and what to set."""


@dataclass(frozen=True)
class Surroundings:
    """Facts of this machine and of the environment that the command was given."""

    temp: Path  # in which Ray makes its folder
    temp_fault: str | None = None  # why it cannot; None where it can
    room: int = 10**12  # free bytes there
    home: Path = Path("/home")
    home_fault: str | None = None  # why nothing can be written there
    has_token: bool = False  # of Ray's authentication, or authentication is off
    shared_memory: int = 10**12  # free bytes of /dev/shm; 0 where it is missing or not ours
    taken_port: int | None = None  # one that the environment names for Ray and another process listens on
    load: float = 0.0  # processes that are ready to run, for each core

    @property
    def too_long(self) -> bool:
        """Whether the sockets in Ray's folder would have paths that the system does not take."""
        return len(os.fsencode(self.temp / "ray")) + SOCKET > LONGEST_SOCKET

    @property
    def needs_own_folder(self) -> bool:
        return self.too_long or self.temp_fault is not None or self.needs_own_token

    @property
    def needs_own_token(self) -> bool:
        return self.home_fault is not None and not self.has_token

    @property
    def needs_other_memory(self) -> bool:
        """Whether shared objects must lie in a folder instead of /dev/shm."""
        return self.shared_memory < OBJECT_STORE


def look(environment: dict[str, str] | None = None) -> Surroundings:
    """The facts as they are now."""
    asked = (os.environ if environment is None else environment).get
    # As Ray chooses it.
    temp = Path(
        asked("RAY_TMPDIR") or (sys.platform != "darwin" and asked("TMPDIR")) or ("/tmp" if sys.platform == "darwin" else gettempdir())
    )
    home = Path(asked("HOME") or Path.home())
    given = any(map(asked, ("RAY_AUTH_TOKEN", TOKEN))) or asked("RAY_AUTH_MODE", "").lower() == "disabled"
    return Surroundings(
        temp,
        temp_fault=write_fault(temp / "ray"),
        room=free_bytes(temp),
        home=home,
        home_fault=write_fault(home / ".ray"),
        has_token=given or os.access(home / ".ray" / "auth_token", os.R_OK),
        shared_memory=free_bytes(SHARED_MEMORY) if sys.platform == "linux" and os.access(SHARED_MEMORY, os.W_OK) else 0,
        taken_port=int(port) if (port := asked(GCS_PORT, "")).isdigit() and listens(int(port)) else None,
        load=os.getloadavg()[0] / (os.cpu_count() or 1),
    )


def write_fault(folder: Path) -> str | None:
    """Why nothing can be written in a folder, which is made where it is missing; None where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".probe-"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def free_bytes(folder: Path) -> int:
    """Free on the disk of a folder; 0 where that is not there."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bsize * status.f_bavail


def listens(port: int) -> bool:
    """Whether a process of this machine has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def short_folder(around: Surroundings, places: Iterable[str] = SHORT) -> TemporaryDirectory:
    """A folder of our own for Ray's session, with a short name. Raises: NoPlaceError."""
    faults = []
    for place in places:
        try:
            return TemporaryDirectory(dir=place, prefix="sv-", ignore_cleanup_errors=True)
        except OSError as error:
            faults.append(f"{place}: {error.strerror}")
    raise NoPlaceError("\n".join([*complaints(around), f"no other folder can be written ({'; '.join(faults)})"]))


def complaints(around: Surroundings) -> list[str]:
    """Everything here that keeps Ray from starting, or may: what it is, and how to fix it."""
    found = []
    if around.too_long:
        size = len(os.fsencode(around.temp / "ray")) + SOCKET
        found.append(
            f"TMPDIR ({around.temp}) is too long: a socket's path below it has {size} bytes, and the system allows {LONGEST_SOCKET}; "
            "set RAY_TMPDIR to a folder with a short name"
        )
    if around.temp_fault:
        found.append(f"{around.temp}/ray cannot be written ({around.temp_fault}); set RAY_TMPDIR to a folder that is yours")
    if around.needs_own_token:
        found.append(f"HOME ({around.home}) cannot be written ({around.home_fault}), and Ray keeps its token there; set HOME to another")
    if around.needs_other_memory and around.room < OBJECT_STORE:
        free = f"{SHARED_MEMORY} has {around.shared_memory / 1e6:,.0f} MB free and {around.temp} {around.room / 1e6:,.0f} MB"
        found.append(
            f"{free}, and Ray needs {OBJECT_STORE / 1e6:,.0f} MB for shared objects; "
            "free some space (docker run --shm-size=1g), or set RAY_TMPDIR to a folder on another disk"
        )
    elif around.room < OBJECT_STORE:
        free = f"{around.temp} has {around.room / 1e6:,.0f} MB free, and Ray writes its logs there"
        found.append(f"{free}; free some space, or set RAY_TMPDIR to a folder on another disk")
    if around.taken_port:
        found.append(f"port {around.taken_port} ({GCS_PORT}) is in use by another process; unset {GCS_PORT}, or set it to a free port")
    if around.load > 4:
        found.append(f"{around.load:.0f} processes wait for each CPU core; try again when the machine is less busy")
    return found


def why_not(around: Surroundings, message: str) -> str:
    """Why Ray did not start, from its message and the facts of this machine."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no message"]
    found = complaints(around) or [f"see the newest logs in {around.temp}/ray/session_latest/logs"]
    # Ray quotes the end of a server's log; the cause stands last.
    return "\n".join(
        ["Ray did not start on this machine: " + " ... ".join(dict.fromkeys([lines[0], lines[-1]])), *(f"  {one}" for one in found)]
    )


def gpus_here(devices: Path = Path("/dev")) -> int:
    """GPUs of this machine that torch can use; Apple's counts as one.

    Args:
        devices: the system's folder of devices.
    """
    if gpus_are_hidden() or not (sys.platform == "darwin" or any(any(devices.glob(name)) for name in SHOWN)):
        return 0
    import torch

    found = device_here().type
    return torch.cuda.device_count() if found == "cuda" else int(found == "mps")
