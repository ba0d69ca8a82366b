"""How busy this machine is."""

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic

EVERY = 4.0  # seconds between two measurements; the driver's tool takes some tenths
TIMEOUT = 3.0  # seconds after which the driver's tool is not waited for
ASKED = "name,utilization.gpu,memory.used,memory.total"


@dataclass(frozen=True)
class Gpu:
    """One GPU at a moment."""

    name: str
    busy: float | None  # share of the time that it computes, 0..1; None where it does not say, as a part of a GPU
    used: float  # GB of its memory
    memory: float  # GB


@dataclass(frozen=True)
class Use:
    """A machine at a moment."""

    host: str
    cores: int
    cpu: float | None  # share of the time that its cores compute, 0..1, since the last look; None before the second one
    gpus: tuple[Gpu, ...]


class Machine:
    """This machine; asked from several threads."""

    def __init__(self):
        self._lock = Lock()
        self._busy, self._total = _ticks()
        self._measured = monotonic()
        self._use = Use(socket.gethostname(), os.cpu_count() or 1, None, _gpus())

    def use(self) -> Use:
        """How busy it has been lately."""
        with self._lock:
            if monotonic() - self._measured > EVERY:
                busy, total = _ticks()
                cpu = (busy - self._busy) / (total - self._total) if total > self._total else None
                self._busy, self._total, self._measured = busy, total, monotonic()
                self._use = Use(self._use.host, self._use.cores, cpu, _gpus())
            return self._use


def _ticks() -> tuple[int, int]:
    """The time that all cores have computed, and all time, since the machine started; Linux says so, elsewhere nothing is known."""
    file = Path("/proc/stat")
    if not file.is_file():
        return 0, 0
    times = [int(word) for word in file.read_text().partition("\n")[0].split()[1:9]]
    # user nice system idle iowait irq softirq steal: proc(5)
    return sum(times) - times[3] - times[4], sum(times)


def _gpus() -> tuple[Gpu, ...]:
    if not shutil.which("nvidia-smi"):
        return ()
    try:
        command = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
        rows = [line.rsplit(", ", 3) for line in said.strip().splitlines()]
        return tuple(Gpu(name, _share(busy), float(used) / 1024, float(memory) / 1024) for name, busy, used, memory in rows)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()  # a card that does not say how busy it is


def _share(percent: str) -> float | None:
    return float(percent) / 100 if percent.isdecimal() else None
