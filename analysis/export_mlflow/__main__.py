"""The command: a run, as MLflow shows it."""

from typing import Annotated

import typer

from analysis.command import refusals, run_to_export, warn
from analysis.evaluation.search.exported import exported
from trainables.commands import program
from trainables.console import document, output
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
INSTALL = "MLflow's client is not installed: pip install mlflow-skinny, or uv run --extra mlflow ..."


@app.command()
def main(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name in runs/, its folder, or its address.")],
    uri: Annotated[
        str | None,
        typer.Option(help="Where MLflow keeps its runs, such as http://127.0.0.1:5000. [default: $MLFLOW_TRACKING_URI, or mlflow.db here]"),
    ] = None,
    experiment: Annotated[str, typer.Option(help="The experiment that the run belongs to; made where it is missing.")] = "sweepvote",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Send a run to MLflow: trials with settings, curves and files, and the ensemble as a model that predicts.

    The run is a run of MLflow's, and each trial a child of it. Exported again, as after a resume, what is there is brought up to date.

        python -m analysis.export_mlflow faces --uri http://127.0.0.1:5000

    The ensemble is a model of MLflow's, weights included. Where sweepvote is installed, mlflow.pyfunc.load_model(...) answers for a list of
    images, or a table with a column image, as analysis.predict does.
    """
    with refusals():
        export(run, uri, experiment)


def export(name: str, uri: str | None, experiment: str) -> None:
    """Check, read, send, print. Raises: RunError; typer.Exit with 1 where something was damaged and left out."""
    run, console = run_to_export(name, "mlflow", INSTALL), output()
    with waiting("reading the trials"):
        found = exported(run)
    with waiting("importing MLflow"):
        from analysis.export_mlflow.tracking import Tracking, in_plain_words
    with in_plain_words(uri):
        with waiting("asking MLflow what is there"):
            tracking = Tracking.of(found, uri, experiment)
        with progress_bar("exporting trials", len(found.trials)) as progress:
            for trial in found.trials:
                tracking.send(trial)
                progress(1)
        with waiting("exporting the ensemble"):
            tracking.finish()
    counts = [f"{count} {word}" for word, count in tracking.counts.items() if count]
    console.print(f"{len(found.trials)} trials ({', '.join(counts) or 'none'}) of {found.name}: {tracking.place}", soft_wrap=True)
    if tracking.model:
        words = f'mlflow.set_tracking_uri("{tracking.uri}"); mlflow.pyfunc.load_model("{tracking.model}").predict(["image.jpg"])'
        console.print(f"Use: {words}", soft_wrap=True)
    warn(console, *(f"left out: {one}" for one in found.damaged))
    document(
        {
            "tracking": tracking.uri,
            "experiment": experiment,
            "run": tracking.parent,
            "trials": tracking.sent,
            "model": tracking.model,
            "damaged": found.damaged,
        }
    )
    if found.damaged:
        raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name=program("analysis.export_mlflow"))
