"""What surrounds every command that trains trials: Ray's servers, signals, and words in place of tracebacks."""

import re
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from trainables.console import complain

# Ray, torch and timm take seconds, and --help needs none of them: they are imported where they are used.
if TYPE_CHECKING:
    from tuner.cluster import Cluster

Start = Callable[[], "Cluster"]


class Terminated(SystemExit):
    """SIGTERM came: an exit like any other to whoever has something to close, and told apart from one of another cause."""


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """`90`, `90s`, `20m`, `1.5h` or `2d` in seconds. Raises: typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is no length of time; write 90s, 20m or 1.5h")
    return float(match[1]) * UNITS[match[2] or "s"]


# Options that all of them have.
TimeBudget = Annotated[float | None, typer.Option(parser=seconds, metavar="TIME", help="End after this long: 90s, 20m, 1.5h.")]
Retries = Annotated[
    int | None, typer.Option(min=0, help="Attempts at an epoch after a trial's process died; the first is not counted. Default: 2.")
]
GpusPerTrial = Annotated[
    float | None, typer.Option(min=0, help="GPUs, or a share of one, for each trial. Default: measured, as many as fit share one.")
]
CpusPerTrial = Annotated[
    int | None, typer.Option(min=1, help="CPU cores and threads for each trial. Default: 1, or with GPUs an even share.")
]
Address = Annotated[
    str | None, typer.Option(help="Join the Ray cluster at this address; auto finds this machine's. Default: this machine alone.")
]
Dashboard = Annotated[bool, typer.Option(help="Serve Ray's dashboard on this machine.")]


def carry_out(work: Callable[[Start], int], console: Console, *, address: str | None, dashboard: bool) -> NoReturn:
    """Do the work and exit with its code; 2 after words on what the user can mend, 130 and 143 when a signal came before trials ran.

    Args:
        work: takes a function that starts Ray, to be called when it is needed.
    """
    from search_spaces.schema import SpaceError
    from trainables.data.batches import PhotoError
    from trainables.data.photos import DataError
    from trainables.migrations import NewerFormatError
    from trainables.record import RunError
    from trainables.registry import ConfigError
    from trainables.storage import NO_ROOM, StorageError
    from tuner import cluster

    # Until trials run there is nothing to save; SIGTERM's own way to end a process would leave Ray's servers behind.
    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    # Ray's servers start while this process imports torch.
    importing = Thread(target=import_module, args=("timm",))

    def start() -> "Cluster":
        try:
            joined = cluster.start(address, dashboard=dashboard)
        except SystemExit:
            # While Ray starts, handlers of its own stand in place of ours and exit with codes of their own.
            raise Terminated from None
        # They stay: one exits with another code, one below Python aborts three seconds later.
        signal.signal(signal.SIGTERM, end)
        importing.join()
        return joined

    def refuse(words: str) -> int:
        complain(words)
        return 2

    signal.signal(signal.SIGTERM, end)
    try:
        importing.start()
        code = work(start)
    except (SpaceError, ConfigError, DataError, PhotoError, RunError, NewerFormatError, StorageError, cluster.ClusterError) as error:
        code = refuse(str(error))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f"{error.filename}: " if error.filename else ""
        code = refuse(f"{where}{error.strerror}. Free some room there; nothing is lost")
    except KeyboardInterrupt:
        console.print("Stopped by Ctrl-C.")
        code = 128 + signal.SIGINT
    except Terminated:
        console.print("Stopped by SIGTERM.")
        code = 128 + signal.SIGTERM
    finally:
        # Left to the end of the process, Ray waits a minute for a server that is gone.
        cluster.stop()
    sys.exit(code)
