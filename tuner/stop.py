"""`python -m tuner.stop RUN`: end a search softly, or one of its trials."""

from typing import Annotated

import typer

from analysis.command import refusals
from trainables.commands import launch
from trainables.console import document, output
from trainables.options import AsJson
from tuner.requests import stop


def main(
    run: Annotated[str, typer.Argument(help="A run's name in runs/, its folder, or its address.")],
    trial: Annotated[int | None, typer.Option(help="Only this trial, by its number; the search goes on.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stop a search softly, from any machine that reaches its folder, or one of its trials.

        python -m tuner.stop faces

        python -m tuner.stop faces --trial 7

    Every running trial ends after its current epoch and can be resumed, as after Ctrl-C. A trial that is stopped alone stays stopped, and
    what it reached counts.

    Exit codes: 0 asked, 2 it does not run.
    """
    with refusals():
        file = stop(run, trial)
    what = "the search is" if trial is None else f"trial {trial} is"
    output().print(f"Asked: {what} stopped after the current epoch ({file})", soft_wrap=True)
    document({"request": file})


if __name__ == "__main__":
    launch(main, "tuner.stop")
