"""The command: one page that says what a search found, what it cost, and what may be believed of it."""

from collections.abc import Sequence

import typer
from rich import box
from rich.table import Table

from analysis.command import RunOption, refusals, run_folders, show_written, warn
from analysis.evaluation.search.history import costs, ranked
from analysis.evaluation.search.reading import Search, read_searches
from analysis.evaluation.search.summary import summary_of
from trainables.commands import program
from trainables.console import document, output
from trainables.options import AsJson, TrustCode
from trainables.progress import waiting

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    run: RunOption = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write what a search found as one page that needs no network and no other file.

    The answer and what it is worth, how the search went, which settings decided, what each value gave, whether stopping early could be
    trusted, what it cost, where the answer is wrong: all from the records, in seconds. What another command has yet to find out is named,
    with the command:

        python -m analysis.report --run faces

        python -m analysis.report --run faces --run masks --run genders

    Everything lands in runs/<first run>/report/: index.html, and each figure as a PNG of its own.
    Where analysis.mistakes has made sheets of images the page holds small copies of them, so share it as you would share these.
    """
    with refusals():
        make_report(run)


def make_report(names: Sequence[str] | None) -> None:
    """Read, print a summary, write. Raises: RunError, StorageError."""
    console = output()
    with waiting("reading the records of all trials"):
        searches = read_searches(run_folders(names))
    console.print(summary(searches))
    for search in searches:
        warn(console, *(f"damaged, left out: {search.name}/{item}" for item in search.damaged))
    with waiting("drawing"):
        from analysis.report.page import write_report
        from analysis.report.sections import report

        written = write_report(searches[0].folder / "report", ", ".join(search.name for search in searches), report(searches))
    show_written(console, written)
    document({"files": written, "runs": [summary_of(search.folder) for search in searches]})


def summary(searches: Sequence[Search]) -> Table:
    """A row for each run."""
    table = Table(title="Runs", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("run", "trials", "outcomes", "hours of training", "best trial", "its score", "metric"):
        table.add_column(name, justify="left" if name in ("run", "outcomes", "metric") else "right")
    for search in searches:
        found = costs(search.trials, search.card.gpus_per_trial, search.metric)
        best = ranked(search.trials, search.metric)[0]
        outcomes = ", ".join(f"{cost.trials} {cost.state}" for cost in found)
        hours = f"{sum(cost.hours for cost in found):.2f}"
        table.add_row(search.name, str(len(search.trials)), outcomes, hours, str(best.number), f"{best.score:.3f}", search.metric.title)
    return table


if __name__ == "__main__":
    app(prog_name=program("analysis.report"))
