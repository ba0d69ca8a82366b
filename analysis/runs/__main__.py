"""The command: which runs there are, and how each stands."""

from contextlib import suppress
from typing import Annotated, Any

import typer

from analysis.command import refusals, table, warn
from analysis.evaluation.elsewhere import FILE, read_notes
from analysis.evaluation.search.reading import lenient
from analysis.evaluation.search.summary import summary_of
from search_spaces.errors import UserError
from trainables.commands import program, typed
from trainables.console import document, output
from trainables.extensions import ExtensionError
from trainables.metrics import BY_NAME
from trainables.options import AsJson
from trainables.record import RUNS, list_folders, open_run
from trainables.storage import Folder, open_folder, size_below

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    storage: Annotated[str, typer.Option(help="Where runs are kept: a folder, or an address such as s3://bucket/runs.")] = str(RUNS),
    as_json: AsJson = False,
) -> None:
    """List the runs that there are: date, trials, best score, answer, size.

        python -m analysis.runs

    A score is on validation, an answer's on the hold-out with its 95 % CI; below a run stand the scores that its submissions were given
    elsewhere (python -m analysis.note). A run that cannot be read is listed with the reason.
    """
    with refusals():
        list_runs(open_folder(storage))


def list_runs(storage: Folder) -> None:
    """Read, print. Raises: StorageError."""
    console = output()
    runs = sorted((run for run in list_folders(storage) if (run / "run.json").is_file()), key=lambda run: run.name)
    found = sorted((stand_of(run) for run in runs), key=lambda one: one.get("begun") or "")
    if found:
        words = ("run", "begun", "trials", "best", "answer", "size")
        console.print(table(f"Runs in {storage}", words, rows=map(row_of, found)))
        damaged: list[str] = []
        notes = {str(run): lenient(run, FILE, lambda _, run=run: read_notes(run), (), damaged) for run in runs}
        for folder, note in ((folder, note) for folder, own in notes.items() for note in own):
            console.print(f"{folder}: {note}", style="yellow" if note.outside else None, soft_wrap=True)
        warn(console, *(f"damaged: {storage}/{item}" for item in damaged))
        found = [one | {"elsewhere": [note.plain() for note in notes[one["folder"]]]} for one in found]
    else:
        console.print(f"There is no run in {storage}/ yet; {typed('tuner.run')} makes one.", soft_wrap=True)
    document({"storage": str(storage), "runs": found})


def stand_of(run: Folder) -> dict[str, Any]:
    """How a run stands, and its size in bytes; of one that cannot be read the reason."""
    # Where they cannot be executed, what they name stays unknown: the list says so.
    with suppress(ExtensionError):
        open_run(run)
    try:
        return {**summary_of(run), "bytes": size_below(run)}
    except UserError as error:
        return {"name": run.name, "folder": str(run), "mistake": str(error)}


def row_of(stand: dict[str, Any]) -> list[str]:
    """Its row in the table."""
    if "mistake" in stand:
        return [stand["name"], "", stand["mistake"], "", "", ""]
    trials, best, answer = dict(stand["trials"]), stand["best"], stand["answer"]
    planned = trials.pop("planned")
    states = ", ".join(f"{count} {state}" for state, count in trials.items() if count)
    title = BY_NAME[stand["metric"]].title
    scores = f"{title} {best['score']:.3f} (trial {best['trial']})" if best else ""
    answers = "{} {:.3f} ({:.3f} to {:.3f})".format(answer["answer"], answer["score"], *answer["interval"]) if answer else ""
    counts = f"{sum(trials.values())} of {planned}: {states}" if states else f"none of {planned}"
    begun = (stand["begun"] or "").replace("T", " ")[:16]
    return [stand["name"], begun, counts, scores, answers, f"{stand['bytes'] / 1e6:,.0f} MB"]


if __name__ == "__main__":
    app(prog_name=program("analysis.runs"))
