"""`python -m tuner.replay --run faces --trial 7`: train a trial again, outside the search, and compare it with its record."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from search_spaces.errors import UserError
from search_spaces.schema import show
from trainables.commands import launch
from trainables.console import STOPPED, complain, document, output
from trainables.devices import device_here
from trainables.extensions import fault_of, hashes, loaded
from trainables.metrics import BY_NAME
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar
from trainables.record import (
    DAMAGE,
    FIRST,
    Cause,
    Predictions,
    Record,
    RunCard,
    RunError,
    find_run,
    list_trials,
    open_run,
    read_predictions,
    read_record,
)
from trainables.registry import ConfigError
from trainables.storage import Folder, StorageError
from tuner.comparison import (
    COMPARED,
    SCORE,
    Again,
    Conditions,
    compare_best,
    compare_epochs,
    compare_predictions,
    compared_words,
    conditions,
    epochs_table,
    unlike,
    verdict,
)

# pandas, torch and timm take seconds, and --help needs none of them: they are imported where they are used.
if TYPE_CHECKING:
    import torch

    from trainables.data.images import Images
    from trainables.data.training import Data
    from trainables.data.views import ViewFiles

REPEATED: tuple[Cause, ...] = ("diverged", "settings")  # failures that the settings lead to each time


def main(
    run: Annotated[str, typer.Option(help="A run's name in runs/, its folder, or its address.")],
    trial: Annotated[int, typer.Option(help="The trial's number.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Train at most this many epochs. Default: all that were reported.")] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="The images, as for tuner.run. Default: those of the run.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; with another number sums may differ in their last bits. Default: as recorded.")
    ] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train a trial again, outside the search, and compare it epoch by epoch with its record.

    With the same code, libraries, threads and CPU type it must be bitwise identical. Elsewhere, and on a GPU, the best score may
    differ by half its 95 % CI and every train loss by 10 %. Nothing of the run is changed.

        python -m tuner.replay --run faces --trial 7

    Exit codes: 0 identical or within tolerance, 1 not, 2 it cannot be replayed, 130 Ctrl-C.
    """
    console = output()
    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    def check_interrupt() -> None:
        # Python drops an exception that a signal raises in a callback, as imports have many.
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        code = replay(run, trial, epochs=epochs, folder=data, threads=threads, console=console, after_epoch=check_interrupt)
    except UserError as error:
        complain(str(error))
        code = 2
    except KeyboardInterrupt:
        console.print(STOPPED)
        code = 130
    finally:
        signal.signal(signal.SIGINT, before)
    sys.exit(code)


def replay(
    name: str,
    number: int,
    *,
    epochs: int | None,
    folder: str | Path | None,
    threads: int | None,
    console: Console,
    after_epoch: Callable[[], None] = lambda: None,
) -> int:
    """Run the command and return its exit code.

    Args:
        epochs: to train at most; None for all that were reported.
        folder: of the images; None for where they were.
        threads: None for as many as then.
        after_epoch: called after each epoch; may raise.
    Raises: RunError, DataError, ConfigError, ImageError, StorageError for what the user can fix.
    """
    from trainables.versions import code_version, device_name, versions

    def say(words: str, style: str | None = None) -> None:
        console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)

    run = find_run(name)
    card = open_run(run)
    record, predictions = read_trial(run, number)
    import torch

    metric = BY_NAME[record.config.metric]
    threads = threads or record.result.threads
    torch.set_num_threads(threads)
    device = device_here()
    for line in describe(card, record):
        say(line)
    now = Conditions(device_name(device), threads, code_version(), versions(), hashes(loaded(card.extensions)))
    excuses = unlike(conditions(record.result), now)
    for excuse in excuses:
        say(f"  {excuse}", style="yellow")

    # A failure that comes again does so in the epoch after the last one reported.
    possible = len(record.reports) + (record.result.cause in REPEATED)
    wanted = min(epochs or possible, possible)
    data = read_data(run, card, record, folder)
    keep = predictions.epoch if predictions else 0
    with progress_bar("training epochs", wanted) as advance:

        def trained(epochs: int) -> None:
            advance(epochs)
            after_epoch()

        again = train_again(record, data, wanted, threads=threads, device=device, keep=keep, advance=trained)
    tolerance = score_tolerance(record, predictions, data)
    found = [
        *compare_predictions(predictions, again.predictions),
        *compare_epochs(record, again, wanted),
        *compare_best(record.reports[:wanted], again.reports, tolerance, metric),
    ]
    findings = sorted(found, key=lambda finding: finding.epoch)
    if again.reports:
        console.print(epochs_table(record.reports, again.reports, findings, metric))
    if wanted < possible:
        say(f"Epochs after {wanted} were not trained again.")
    if predictions and not again.predictions:
        say(f"The validation probabilities are of epoch {predictions.epoch}, which was not reached.")
    code, words = verdict(findings, excuses, compared_words(again), tolerance, metric)
    say(words, style="green" if code == 0 else "red")
    document({"verdict": words, "differences": [str(finding) for finding in findings], "other conditions": excuses})
    return code


def read_trial(run: Folder, number: int) -> tuple[Record, Predictions | None]:
    """A trial that can be replayed, and its validation probabilities where it has any.

    Raises: RunError when there is no such trial (naming those there are), when it is damaged, and when it left nothing to compare.
    """
    folders = {int(folder.name): folder for folder in list_trials(run)}
    if number not in folders:
        listed = "\n".join(f"  {line}" for line in map(one_line, folders.values())) or "  none yet"
        raise RunError(f"{run} has no trial {number}; it has\n{listed}")
    try:
        record = read_record(folders[number])
        predictions = read_predictions(record.folder) if record.reports else None
        _check(record)
    except StorageError:
        raise
    except DAMAGE as error:
        raise RunError(f"{folders[number]} is damaged ({type(error).__name__}: {error}); restore it from a backup") from None
    if not record.reports and record.result.cause not in REPEATED:
        raise RunError(f"trial {number} reported no epoch ({record.result.state}: {record.result.reason}); there is nothing to compare")
    return record, predictions


def one_line(folder: Folder) -> str:
    """A trial by its number, state and score."""
    try:
        record = read_record(folder)
    except StorageError:
        raise
    except DAMAGE:
        return f"{folder.name}: damaged"
    score = "no score"
    if record.best and record.best["score"] is not None:
        score = f"{BY_NAME[record.config.metric].title} {record.best['score']:.4f} at epoch {record.best['epoch']}"
    return f"{folder.name}: {record.result.state}, {score}"


def describe(card: RunCard, record: Record) -> Iterator[str]:
    """The trial in words: which, how it ended, its settings, its notes."""
    config, result = record.config, record.result
    yield f"Trial {record.number} of {card.name}, {record.folder}: {result.state} after {len(record.reports)} epochs, {result.reason}"
    height, width = config.view.height, config.view.width
    parts = [
        config.model.backbone,
        f"task {show(config.task)}",
        f"{height}x{width} pixels",
        config.loss.name,
        f"{config.optimizer.name} at {config.optimizer.lr:.3g}",
        f"batches of {config.train.batch_size}",
        f"{config.epochs} epochs",
        f"seed {config.seed}",
    ]
    yield f"  {', '.join(parts)}"
    yield from (f"  {note}" for note in result.notes)


def read_data(run: Folder, card: RunCard, record: Record, folder: str | Path | None) -> "Data":
    """The images of the run in the order of its split.csv, verified to be the same.

    Raises: RunError when they are not, naming what differs, DataError when they cannot be read.
    """
    from trainables.data.extra import complete
    from trainables.data.layouts.reading import read_images
    from trainables.data.training import Data
    from trainables.data.view_store import view_cache
    from trainables.data.views import View, build_views, count_missing
    from trainables.mirror import local_folder
    from trainables.restore_data import read_teacher, restore_split, verify_extra

    source, view = local_folder(folder or card.data), View.of(record.config.view)
    if folder is None and not source.exists():
        raise RunError(f"the images of {card.name} were in {card.data}, which is gone; give --data their new path")

    def decoded(images: "Images") -> "tuple[Images, ViewFiles]":
        with progress_bar("decoding images", count_missing(images, [view], view_cache())) as advance:
            views = build_views(images, [view], view_cache(), advance)
        return images.without(views.bad), views

    images, views = decoded(read_images(source, record.config.data))
    images, split = restore_split(run, card, images, views.digests, record.config.data.fold)
    if split.hash != record.result.split:
        raise RunError(f"trial {record.number} was trained on the split {record.result.split}, but {run}/split.csv is {split.hash}")
    by_data = record.config.normalize == "dataset"
    data = Data.of(images, split, views, with_statistics=by_data)
    tasks, relabels = [record.config.task], [record.config.labels.relabel]
    whole = complete(data, source, record.config.data, tasks, relabels, views.digests, decoded, read_teacher(run, card))
    verify_extra(run, whole.table)
    return whole.data


def train_again(
    record: Record, data: "Data", epochs: int, *, threads: int, device: "torch.device", keep: int, advance: Callable[[int], None]
) -> Again:
    """Train as the trial was trained, without writing anything.

    Args:
        epochs: after how many to stop, unless the training ends before.
        threads: that prepare batches for a GPU.
        keep: the epoch whose validation probabilities are wanted.
        advance: called with 1 after every epoch.
    Raises: ConfigError, ImageError, and RunError where the GPU is too small.
    """
    from torch.cuda import OutOfMemoryError

    from trainables.build import build_parts
    from trainables.checkpoint import begin_from
    from trainables.loop import DivergedError
    from trainables.probe import epochs_of

    config, result = record.config, record.result
    ids = tuple(data.images.ids[index] for index in data.split.valid)
    reports, predictions, cause, reason = [], None, "", ""
    try:
        parts = build_parts(config, data, device, threads=threads if device.type != "cpu" else 0, micro_batch=result.micro_batch)
        if config.data.goes_on:
            begin_from(record.folder / FIRST, parts)
        for epoch in islice(epochs_of(config, parts), epochs):
            reports.append(asdict(epoch.report))
            if epoch.report.epoch == keep:
                predictions = Predictions(ids, epoch.probabilities, keep)
            advance(1)
    except DivergedError as error:
        cause, reason = "diverged", str(error)
    except ConfigError as error:
        if result.cause != "settings":
            raise
        cause, reason = "settings", str(error).splitlines()[0]
    except OutOfMemoryError:
        raise RunError(
            f"the GPU ran out of memory in epoch {len(reports) + 1}; trial {record.number} was trained on {result.device}. "
            f"Use a GPU with as much memory, free this one, or give --epochs {len(reports)}"
        ) from None
    except Exception as error:
        if result.cause != "settings" or not (fault := fault_of(error)):
            raise
        cause, reason = "settings", fault.splitlines()[0]
    return Again(tuple(reports), predictions, cause, reason)


def score_tolerance(record: Record, predictions: Predictions | None, data: "Data") -> float:
    """How far the best score may be from the record's: half its 95 % CI over groups, and at least SCORE."""
    from trainables.validation import validation_interval

    if predictions is None or not predictions.ids or predictions.ids != tuple(data.images.ids[index] for index in data.split.valid):
        return SCORE
    low, high = validation_interval(record.config, predictions, data.images, data.split)
    return max(SCORE, (high - low) / 2)


def _check(record: Record) -> None:
    """Raises: ValueError when the reports are not those of the epochs from the first on, each with all that is compared."""
    epochs = [report["epoch"] for report in record.reports]
    if epochs != list(range(1, len(epochs) + 1)):
        raise ValueError(f"reports.jsonl holds the epochs {epochs}")
    missing = sorted({name for report in record.reports for name in COMPARED if name not in report})
    if missing:
        raise ValueError(f"reports.jsonl lacks {', '.join(missing)}")


if __name__ == "__main__":
    launch(main, "tuner.replay")
