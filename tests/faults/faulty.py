"""Processes that die by SIGKILL, for which none can prepare, at a chosen moment of writing a chosen file.

Nothing of the product is replaced for that: the interpreter's audit events tell of every file that takes another's place. A file that
is not written beside and renamed therefore never meets its fault, and its process lives on, which every test notices.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import get_ident
from typing import Any, Literal

Moment = Literal["half", "beside", "renamed"]
MOMENTS: tuple[Moment, ...] = ("half", "beside", "renamed")
FAULT = "FAULT_OF_THE_TEST"  # in the environment of a command


@dataclass(frozen=True)
class Fault:
    """When a process dies."""

    file: str  # how the path of the file ends
    moment: Moment  # half of it written beside its place, all of it, or just renamed into its place
    write: int = 1  # which write of the file: the first is 1
    holding: str = ""  # only writes of a content with these words count


def arm(fault: Fault) -> None:
    """From now on this process dies when the fault is met."""
    seen, renaming = 0, None

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen, renaming
        if renaming == get_ident():
            # The event is told before it happens; the next one of this thread comes when the file has its name.
            renaming = None
            die()
        if event != "os.rename":
            return
        source, target = (Path(os.fsdecode(path)) for path in arguments[:2])
        if not str(target).endswith(fault.file) or fault.holding.encode() not in source.read_bytes():
            return
        seen += 1
        if seen < fault.write:
            return
        if fault.moment == "renamed":
            renaming = get_ident()
            return
        if fault.moment == "half":
            os.truncate(source, source.stat().st_size // 2)
        die()

    sys.addaudithook(hear)


def arm_curves(record: int) -> None:
    """From now on this process dies in the middle of this record of TensorBoard's file, which is appended to and never renamed."""
    from tensorboardX.record_writer import RecordWriter

    write_atomically = RecordWriter.write
    seen = 0

    def write(self: RecordWriter, content: bytes) -> None:
        nonlocal seen
        write_atomically(self, content)
        seen += 1
        if seen == record:
            self.flush()
            os.truncate(self.path, os.path.getsize(self.path) - len(content) // 2)
            die()

    RecordWriter.write = write


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# Whole commands


def environment(fault: Fault, folder: Path) -> dict[str, str]:
    """What makes a command die at the fault: `path` is for `start`, the rest for its environment.

    Args:
        folder: where the module may lie that every interpreter imports first.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("from tests.faults import faulty\n\nfaulty.arm_from_environment()\n")
    return {"path": str(folder), FAULT: json.dumps(asdict(fault))}


def arm_from_environment() -> None:
    arm(Fault(**json.loads(os.environ[FAULT])))


# Trials

# Forked from a process that has imported what trials need, a child begins to train within a blink.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["trainables.trial", "timm", __name__])


class Enough(Exception):
    """What ends a trial from outside."""


def exit_code(target: Callable[..., None], *arguments: Any) -> int:
    """How a process of its own ended that called this; -9 when it was killed."""
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def train_armed(fault: Fault | int, number: int, values: dict[str, Any], job: Any) -> None:
    """Train a trial to its end or to the fault; a number is the record of TensorBoard's file to die in."""
    arm_curves(fault) if isinstance(fault, int) else arm(fault)
    train_alone(number, values, job)


def train_alone(number: int, values: dict[str, Any], job: Any, epochs: int | None = None) -> None:
    """Train a trial to its end, or end it after an epoch as ASHA does."""
    from trainables.config import TrialConfig
    from trainables.trial import train

    def report(told: dict[str, Any]) -> None:
        if told["epoch"] == epochs:
            raise Enough

    with suppress(Enough):
        train(number, TrialConfig.from_values(values), job, report)
