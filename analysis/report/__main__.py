"""The command: one page that says what a search found, what it cost, and what may be believed of it."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.report.history import costs, ranked
from analysis.report.page import write_report
from analysis.report.search import Search, read_searches
from analysis.report.sections import report
from analysis.trials import newest_run
from trainables.record import RunError, find_run
from trainables.storage import StorageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    run: Annotated[
        list[str] | None, typer.Option(help="A run's name in runs/, or its folder; repeat it for several. [default: the newest run]")
    ] = None,
) -> None:
    """Write what a search found as one page that needs no network and no other file.

    The answer and what it is worth, how the search went, which settings decided, what each value gave, whether stopping early could be
    trusted, what it cost, where the answer is wrong: all from the records, in seconds. What another command has yet to find out is named,
    with the command:

        python -m analysis.report --run faces

        python -m analysis.report --run faces --run masks --run genders

    Everything lands in runs/<first run>/report/: index.html, and each figure as a PNG of its own.
    Where analysis.mistakes has made sheets of photos the page holds small copies of them, so share it as you would share these.
    """
    try:
        make_report(run)
    except (RunError, StorageError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def make_report(names: Sequence[str] | None) -> None:
    """Read, print a summary, write. Raises: RunError, StorageError."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    folders = [find_run(name) for name in names] if names else [newest_run()]
    searches = read_searches(list({folder.resolve(): folder for folder in folders}.values()))
    console.print(summary(searches))
    for search in searches:
        for item in search.damaged:
            console.print(f"damaged, left out: {search.name}/{item}", style="yellow", markup=False, soft_wrap=True)
    with console.status("drawing"):
        written = write_report(searches[0].folder / "report", ", ".join(search.name for search in searches), report(searches))
    console.print("Written: " + "\n         ".join(map(str, written)), soft_wrap=True, markup=False)


def summary(searches: Sequence[Search]) -> Table:
    """A row for each run."""
    table = Table(title="Runs", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("run", "trials", "outcomes", "hours of training", "best trial", "macro F1"):
        table.add_column(name, justify="left" if name in ("run", "outcomes") else "right")
    for search in searches:
        found, best = costs(search.trials, search.card.gpus_per_trial), ranked(search.trials)[0]
        outcomes = ", ".join(f"{cost.trials} {cost.state}" for cost in found)
        hours = f"{sum(cost.hours for cost in found):.2f}"
        table.add_row(search.name, str(len(search.trials)), outcomes, hours, str(best.number), f"{best.score:.3f}")
    return table


if __name__ == "__main__":
    app(prog_name="python -m analysis.report")
