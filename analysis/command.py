"""What the commands share: which runs, words in place of tracebacks, decoding under a progress bar, tables and lines that are printed."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.evaluation.answering import DeviceName
from analysis.members.predictions import data_folder
from analysis.members.trials import Runs, load_runs, newest_run
from search_spaces.errors import UserError
from trainables.config import TrialConfig
from trainables.console import STOPPED, complain
from trainables.data.images import Images, Unlabelled
from trainables.data.layouts.reading import read_images
from trainables.data.splits import Split
from trainables.data.view_store import view_cache
from trainables.data.views import View, ViewFiles, build_views, count_missing
from trainables.extensions import fault_of, refuse_versions
from trainables.progress import progress_bar, waiting
from trainables.record import RunError, find_run, open_run, read_run
from trainables.restore_data import restore_split
from trainables.storage import Folder

RunOption = Annotated[
    list[str] | None, typer.Option(help="A run's name in runs/, or its folder; repeat it for several. [default: the newest run]")
]

EnsembleOption = Annotated[str, typer.Option(help="The folder of an ensemble, runs/<run>/ensemble, or its address.")]
DeviceOption = Annotated[DeviceName, typer.Option(help="Where models compute; auto takes a GPU if there is one.")]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Images that go through a model at a time. [default: as many as in its validation]")
]
FalseAlarmsOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of images like those learned from that may be called unlike anything learned.")
]
HeatmapsOption = Annotated[
    int, typer.Option(min=0, help="The page shows heat maps (where models look) beside so many images of a kind; 0: none, which is faster.")
]
MAPPED = 40  # images of a kind with a heat map, unless asked otherwise


@contextmanager
def refusals() -> Iterator[None]:
    """Words on stderr and exit code 2 for what the user can fix; 130 after Ctrl-C."""
    try:
        yield
    except UserError as error:
        complain(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        complain(STOPPED)
        raise typer.Exit(128 + signal.SIGINT) from None
    except Exception as error:
        if not (fault := fault_of(error)):
            raise
        complain(fault)
        raise typer.Exit(2) from None


def run_folders(names: Sequence[str] | None) -> list[Folder]:
    """The folders of the runs that were named, each once, or the newest run's, after their extensions were executed in this process.

    Raises: RunError, ExtensionError.
    """
    folders = [find_run(name) for name in names] if names else [newest_run()]
    folders = list({folder.resolve(): folder for folder in folders}.values())
    refuse_versions({str(folder): read_run(folder).extensions for folder in folders})
    for folder in folders:
        open_run(folder)
    return folders


def run_to_export(name: str, client: str, install: str, others: Sequence[str] = ()) -> Folder:
    """The folder of a run that another program's client is to be given.

    Args:
        client: the package that has to be installed.
        install: what is said where it is not.
        others: further mistakes.
    Raises: RunError naming all that is wrong.
    """
    mistakes, folders = [] if find_spec(client) else [install], []
    try:
        folders = run_folders([name])
    except UserError as error:
        mistakes.append(str(error))
    if mistakes or others:
        raise RunError("\n".join([*mistakes, *others]))
    return folders[0]


def read_runs(names: Sequence[str] | None, finalists: bool = True) -> Runs:
    """The trials of the runs that were named, or of the newest run, with their finalists or without. Raises: RunError."""
    folders = run_folders(names)
    with waiting(f"reading the trials of {', '.join(folder.resolve().name for folder in folders)}"):
        return load_runs(folders, finalists)


def decode(images: Images | Unlabelled, views: Sequence[View], cache: Path | None = None) -> ViewFiles:
    """The views of the images, from the cache that the trials filled or another one, or decoded under a progress bar."""
    cache = cache or view_cache()
    with progress_bar("decoding images", count_missing(images, views, cache)) as progress:
        return build_views(images, views, cache, progress)


def restore(runs: Runs, configs: Sequence[TrialConfig], console: Console) -> tuple[Images, Split, ViewFiles]:
    """The images, verified to be those of the runs, their split with the fold of the first configuration, and the views of all of these.

    Raises: RunError, DataError.
    """
    settings = configs[0].data
    found = read_images(data_folder(runs), settings)
    files = decode(found, list(dict.fromkeys(View.of(config.view) for config in configs)))
    warn(console, *files.notes(len(found.ids)))
    images, split = restore_split(runs.folders[0], runs.cards[0], found.without(files.bad), files.digests, settings.fold)
    return images, split, files


def table(title: str, words: Iterable[str], numbers: Iterable[str] = (), rows: Iterable[Sequence[str]] = ()) -> Table:
    """Columns of words, which are folded where they are long, then columns of numbers, and the rows."""
    found = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in words:
        found.add_column(name, overflow="fold")
    for name in numbers:
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found.add_row(*row)
    return found


def warn(console: Console, *lines: object) -> None:
    """Print what is to be noticed, a line each."""
    for line in lines:
        console.print(str(line), style="yellow", soft_wrap=True)


def show_left_out(console: Console, items: Iterable[object]) -> None:
    """Print what was left out and why."""
    warn(console, *(f"left out: {item}" for item in items))


def show_written(console: Console, files: Iterable[object]) -> None:
    """Print where the results are."""
    console.print("Written: " + "\n         ".join(map(str, files)), soft_wrap=True)
