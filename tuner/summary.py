"""What is printed when a search has ended: the best trials, what they cost, where they lie, what to do next."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from search_spaces.schema import Space
from trainables.data.labels import read_task
from trainables.data.photos import Photos
from trainables.data.splits import Split
from trainables.metrics import bootstrap_f1, interval, person_counts
from trainables.record import Record, read_predictions, read_records
from trainables.seeding import generator
from tuner.board import Board, clock, differs
from tuner.stopping import SoftStop

SUMMED_UP = 10  # rows of the last table


def summarize(
    run: Path, space: Space, board: Board, photos: Photos, split: Split, seconds: float, soft_stop: SoftStop, console: Console
) -> None:
    """The last table, what it cost, where it lies, and what to do next."""
    records = read_records(run)
    scored = sorted((record for record in records if record.best), key=lambda record: (-record.best["macro_f1"], record.number))
    table = Table(title=f"Best trials of {run.name}, by macro F1 ({board.attributes}) on validation", title_justify="left", box=None)
    for column in ("trial", "state", "best epoch", "macro F1", "95 % interval", "accuracy"):
        table.add_column(column, justify="left" if column == "state" else "right")
    table.add_column("what differs", overflow="fold")
    for record in scored[:SUMMED_UP]:
        best = record.best
        low, high = validation_interval(record, photos, split)
        row = [f"{best['epoch']} of {len(record.reports)}", f"{best['macro_f1']:.4f}", f"{low:.3f} - {high:.3f}", f"{best['accuracy']:.4f}"]
        table.add_row(str(record.number), record.result.state, *row, differs(space, record.config.values()))
    console.print()
    console.print(table)
    states = [record.result.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "stopped", "interrupted", "failed") if state in states)
    console.print(f"{len(records)} trials: {counts or 'none'}", highlight=False)
    for record in records:
        if record.result.state == "failed":
            console.print(f"  trial {record.number} failed: {record.result.reason}", style="red", highlight=False, markup=False)
    pace = f"{board.photos:,} photos trained in {clock(seconds)}, {board.photos / seconds:,.0f} a second over the whole command"
    console.print(f"{pace}. Size of {run}: {folder_size(run) / 1e6:,.0f} MB", highlight=False)
    if soft_stop.reason:
        console.print(f"Ended early by {soft_stop.reason}; every epoch that was reported is kept.")
    if scored:
        top = min(3, len(scored))
        vote = f"python -m analysis.ensemble --top {top} --run {run.name}"
        console.print(f"Next: [bold]{vote}[/]   or: tensorboard --logdir {run}/trials", highlight=False)


def validation_interval(record: Record, photos: Photos, split: Split) -> tuple[float, float]:
    """The person-bootstrap 95 % interval of a trial's best validation score."""
    predictions = read_predictions(record.folder)
    task = read_task(record.config.task, photos.scheme)
    labels = photos.labels[split.valid][:, photos.scheme.columns(task.scheme.names)]
    truth, predicted = task.scheme.joint(labels), task.joint_probabilities(predictions.heads).argmax(axis=1)
    counts = person_counts(truth, predicted, photos.people[split.valid], task.scheme.classes)
    return interval(bootstrap_f1(counts, generator(record.config.seed, "bootstrap")))


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
