"""What the commands that train trials share: options, Ray's start, signals, and messages in place of tracebacks."""

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from search_spaces.errors import UserError
from search_spaces.shadowing import shadows_in
from trainables.console import STOPPED, complain
from trainables.extensions import fault_of

# Ray, torch and timm take seconds, and --help needs none of them: they are imported where they are used.
if TYPE_CHECKING:
    from tuner.cluster import Cluster, Starting

# Begins to start Ray in the background, with this many GPUs of this machine (None: those that Ray finds); what it gives back waits for it.
Join = Callable[[], "Cluster"]
Start = Callable[[int | None], Join]


class Terminated(SystemExit):
    """SIGTERM came: an exit like any other to whatever has something to close, but with a type of its own."""


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str | float) -> float:
    """`90`, `90s`, `20m`, `1.5h` or `2d` in seconds; a default, which typer sends here too, is a number. Raises: typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(text).strip())
    if not match or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is not a duration; write 90s, 20m or 1.5h")
    return float(match[1]) * UNITS[match[2] or "s"]


# Options that all of them have.
TimeBudget = Annotated[
    float | None,
    typer.Option(parser=seconds, metavar="TIME", help="Be done within this time, from the start of the command: 90s, 20m, 1.5h."),
]
Retries = Annotated[
    int | None, typer.Option(min=0, help="How often a trial whose process died is restarted; each finished epoch resets it. Default: 2.")
]
GpusPerTrial = Annotated[
    float | None, typer.Option(min=0, help="GPUs, or a fraction of one, per trial. Default: measured, so that as many as fit share one.")
]
CpusPerTrial = Annotated[
    int | None, typer.Option(min=1, help="CPU cores and threads per trial. Default: 1; with GPUs an equal share of the cores.")
]
Address = Annotated[
    str | None, typer.Option(help="Join the Ray cluster at this address; auto finds this machine's. Default: start Ray on this machine.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Serve a page of the run on this machine, which refreshes itself and takes requests.")]
Dashboard = Annotated[bool, typer.Option(help="Serve Ray's dashboard on this machine.")]

# Options that say where the images are and how they are read; all but the first are short for settings of the section data.
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="A folder with one folder per class, a table, or a folder with a table; or its address, such as "
        "s3://bucket/flowers. Default: drawn images, for a demo.",
    ),
]
Target = Annotated[str | None, typer.Option(metavar="NAME[,NAME]", help="The column or columns to predict; short for --set data/target=.")]
TagColumns = Annotated[str | None, typer.Option(metavar="NAME[,NAME]", help="The columns of tags; short for --set data/tags=.")]
NumberColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The column of a number to predict; short for --set data/number=.")]
Group = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column of the groups (patient, scene), which no split separates; short for --set data/group=."),
]
LabelPattern = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="Labels in file names, such as {label}_{n}; short for --set data/label_pattern=."),
]
LayoutName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How images and labels are stored, where several layouts fit; short for --set data/layout=."),
]
# Of a command about a search, which knows where its images are.
SearchedData = Annotated[
    str | None, typer.Option(metavar="PATH", help="The folder of the images, or its address. Default: that of the search.")
]
OF_DATA = ("target", "tags", "number", "group", "label_pattern", "layout")


def data_changes(given: Mapping[str, str | None]) -> list[str]:
    """The options of OF_DATA that were given, as `--set` takes them; in quotation marks, for names such as no, 01 or a: b are text."""
    return [f"data/{name}={json.dumps(value)}" for name, value in given.items() if value is not None]


@dataclass(frozen=True)
class TrialCount:
    """`--trials 40`, or `--trials +20`: as many more."""

    number: int
    more: bool = False


def trial_count(text: str) -> TrialCount:
    """`40`, or `+20` for as many more. Raises: typer.BadParameter."""
    match = re.fullmatch(r"(\+?)(\d+)", text.strip())
    if not match or not int(match[2]):
        raise typer.BadParameter(f"{text!r} is not a number of trials; write 40, or with --resume +20 for 20 more")
    return TrialCount(int(match[2]), more=bool(match[1]))


@dataclass(frozen=True)
class Options:
    """What the command line, or a call from Python, asks for."""

    space: str | Mapping[str, Any] | None = None
    resume: str | None = None  # a run to resume
    data: str | Path | None = None  # a path, or an address
    storage: str = "runs"  # folder or address of all runs
    trials: TrialCount | None = None
    time_budget: float | None = None  # seconds
    name: str | None = None
    seed: int | None = None
    early_stopping: bool | None = None  # this and the next five override the section run of the space
    keep_running: float | None = None
    keep: int | None = None
    retries: int | None = None
    finalists: int | None = None
    answer: bool | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: int | None = None
    address: str | None = None
    changes: tuple[str, ...] = ()
    dashboard: bool = True
    watch: bool = False
    dry_run: bool = False
    allow_bad_images: bool = False
    called: str = ""  # how it is called from Python; empty: by the command line


@contextmanager
def ray_starter(address: str | None, *, dashboard: bool) -> Iterator[Start]:
    """Begins to start Ray when it is called, which is when all that can be has been checked; at the end Ray is left."""
    starting: list[Starting] = []

    def start(gpus: int | None) -> Join:
        from trainables.record import RunError

        # Ray's workers look for modules in the current folder first.
        if words := shadows_in(Path.cwd()):
            raise RunError(words)
        # Ray and torch take seconds: a mistake is reported before either is imported.
        from tuner.cluster import Starting

        starting.append(Starting(address, dashboard=dashboard, gpus=gpus))
        return starting[-1].join

    try:
        yield start
    finally:
        # Left to the end of the process, Ray waits a minute for a server that is gone.
        for one in starting:
            one.stop()


def carry_out(work: Callable[[Start], int], console: Console, *, address: str | None, dashboard: bool) -> NoReturn:
    """Do the work and exit with its code; 2 after a message on what the user can fix, 130 and 143 when a signal came before trials ran.

    Args:
        work: takes a function that begins to start Ray, to be called when all that can be has been checked.
    """
    from trainables.storage import UNWRITABLE

    # Until trials run there is nothing to save; SIGTERM's own way to end a process would leave Ray's servers behind.
    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    def refuse(words: str) -> int:
        complain(words)
        return 2

    signal.signal(signal.SIGTERM, end)
    try:
        with ray_starter(address, dashboard=dashboard) as start:
            code = work(start)
    except UserError as error:
        code = refuse(str(error))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        code = refuse(f"{where}{error.strerror}. Free some disk space there; nothing is lost")
    except Exception as error:
        if not (fault := fault_of(error)):
            raise
        code = refuse(fault)
    except KeyboardInterrupt:
        console.print(STOPPED)
        code = 128 + signal.SIGINT
    except Terminated:
        console.print("Stopped by SIGTERM.")
        code = 128 + signal.SIGTERM
    sys.exit(code)
