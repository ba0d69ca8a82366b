"""The command: a run in the offline format of Weights & Biases."""

from pathlib import Path
from typing import Annotated

import typer

from analysis.command import refusals, run_to_export, show_written, warn
from analysis.evaluation.search.exported import exported
from trainables.commands import program
from trainables.console import document, output
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
INSTALL = "W&B's client is not installed: pip install wandb, or uv run --extra wandb ..."


@app.command()
def main(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name in runs/, its folder, or its address.")],
    out: Annotated[Path, typer.Option(help="The folder in which wandb/ is made.")] = Path("."),
    project: Annotated[str, typer.Option(help="The project that it will belong to.")] = "sweepvote",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write a run in the offline format of Weights & Biases: trials with settings, curves and files.

        python -m analysis.export_wandb faces

    Each trial is a run of W&B's, in a group of the run's name. Nothing is sent; `wandb sync` does that. Exported again, a trial's folder is
    written again, under the same id.
    """
    with refusals():
        export(run, out, project)


def export(name: str, out: Path, project: str) -> None:
    """Check, read, write, print. Raises: RunError; typer.Exit with 1 where something was damaged and left out."""
    others = [] if out.is_dir() else [f"--out {out}: there is no such folder; make it, or write elsewhere"]
    run, console = run_to_export(name, "wandb", INSTALL, others), output()
    with waiting("reading the trials"):
        found = exported(run)
    with waiting("importing W&B"):
        from analysis.export_wandb.offline import write_answer, write_trial
    with progress_bar("exporting trials", len(found.trials)) as progress:
        written = []
        for trial in found.trials:
            written.append(write_trial(found, trial, out, project))
            progress(1)
        written.append(write_answer(found, out, project))
    console.print(f"{len(found.trials)} trials of {found.name}. Send them: wandb sync {out / 'wandb'}/offline-run-*", soft_wrap=True)
    warn(console, *(f"left out: {one}" for one in found.damaged))
    show_written(console, [out / "wandb"])
    document({"folders": written, "damaged": found.damaged})
    if found.damaged:
        raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name=program("analysis.export_wandb"))
