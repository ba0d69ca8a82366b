"""What is printed when a search has ended: the best trials, what they cost, where they lie, what to do next."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainables.record import RUNS, read_predictions, read_records
from trainables.storage import Folder, size_below
from trainables.validation import validation_interval
from tuner.board import Board, clock, differs
from tuner.prepare import Plan
from tuner.stopping import SoftStop

SUMMED_UP = 10  # rows of the last table


def summarize(plan: Plan, board: Board, seconds: float, soft_stop: SoftStop, console: Console) -> None:
    """The last table, what it cost, where it lies, and what to do next."""
    run = plan.run
    records = read_records(run)
    scored = sorted((record for record in records if record.best), key=lambda record: (-record.best["macro_f1"], record.number))
    table = Table(title=f"Best trials of {run.name}, by macro F1 ({board.attributes}) on validation", title_justify="left", box=None)
    for column in ("trial", "state", "best epoch", "macro F1", "95 % interval", "accuracy"):
        table.add_column(column, justify="left" if column == "state" else "right")
    table.add_column("what differs", overflow="fold")
    for record in scored[:SUMMED_UP]:
        best = record.best
        low, high = validation_interval(record.config, read_predictions(record.folder), plan.data.photos, plan.data.split)
        row = [f"{best['epoch']} of {len(record.reports)}", f"{best['macro_f1']:.4f}", f"{low:.3f} - {high:.3f}", f"{best['accuracy']:.4f}"]
        table.add_row(str(record.number), record.result.state, *row, differs(plan.space, record.config.values()))
    console.print()
    console.print(table)
    states = [record.result.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "stopped", "interrupted", "failed") if state in states)
    console.print(f"{len(records)} trials: {counts or 'none'}", highlight=False)
    for record in records:
        if record.result.state == "failed":
            console.print(f"  trial {record.number} failed: {record.result.reason}", style="red", highlight=False, markup=False)
    for note in board.notes:
        console.print(note, highlight=False, markup=False)
    pace = f"{board.photos:,} photos trained in {clock(seconds)}, {board.photos / seconds:,.0f} a second over the whole command"
    console.print(f"{pace}. Size of {run}: {size_below(run) / 1e6:,.0f} MB", highlight=False)
    if soft_stop.reason:
        console.print(f"Ended early by {soft_stop.reason}; every epoch that was reported is kept.", highlight=False)
    if soft_stop.no_room:
        # A file stands beside its old one for a moment, and every kept trial adds one of this size.
        need = (plan.settings.keep + 2) * max((size_below(record.folder) for record in records), default=0)
        console.print(f"Free some room there before it goes on: {need / 1e6:,.0f} MB are enough for it all.", highlight=False)
    if soft_stop.reason or "interrupted" in states:
        console.print(f"Go on with: [bold]{resume_command(run)}[/]", highlight=False, soft_wrap=True)
    if scored:
        top = min(3, len(scored))
        name = run.name if run.parent == RUNS else run
        vote = f"python -m analysis.ensemble --top {top} --run {name}"
        curves = f"   or: tensorboard --logdir {run}/trials" if isinstance(run, Path) else ""
        console.print(f"Next: [bold]{vote}[/]{curves}", highlight=False, soft_wrap=True)


def resume_command(run: Folder) -> str:
    """What goes on with a run."""
    return f"python -m tuner.run --resume {run.name if run.parent == RUNS else run}"
