"""`python -m tuner.spare RUN --trial 7`: keep the pruner from a trial."""

from typing import Annotated

import typer

from analysis.command import refusals
from trainables.commands import launch
from trainables.console import document, output
from trainables.options import AsJson
from tuner.requests import spare


def main(
    run: Annotated[str, typer.Argument(help="A run's name in runs/, its folder, or its address.")],
    trial: Annotated[int, typer.Option(help="The trial's number.")],
    as_json: AsJson = False,
) -> None:
    """Spare a trial: it is not pruned any more, and trains to its own end.

        python -m tuner.spare faces --trial 7

    Exit codes: 0 asked, 2 it does not run.
    """
    with refusals():
        file = spare(run, trial)
    output().print(f"Asked: trial {trial} is not pruned any more ({file})", soft_wrap=True)
    document({"request": file})


if __name__ == "__main__":
    launch(main, "tuner.spare")
