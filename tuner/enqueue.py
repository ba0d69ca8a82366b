"""`python -m tuner.enqueue RUN --set optimizer/lr=0.01`: put a configuration into a search."""

from typing import Annotated

import typer

from analysis.command import refusals
from trainables.commands import launch
from trainables.console import document, output
from trainables.options import AsJson, TrustCode
from tuner.requests import enqueue


def main(
    run: Annotated[str, typer.Argument(help="A run's name in runs/, its folder, or its address.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A setting that the run searches: optimizer/lr=0.01. Repeatable."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who proposes it, for the record. Default: the user and machine.")] = "",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Propose a configuration to a search: it is tried next, or first when the run is resumed.

        python -m tuner.enqueue faces --set loss/name=focal --set optimizer/lr=0.01

    What is not set is drawn by the search. It counts as one of the planned trials, is pruned and validated like any other, and the
    hold-out decides on it like on any other. A value that the run's space cannot draw is refused.

    Exit codes: 0 enqueued, 2 refused.
    """
    with refusals():
        file, when = enqueue(run, changes or [], by)
    output().print(f"Enqueued: {file}; {when}", soft_wrap=True)
    document({"request": file, "when": when})


if __name__ == "__main__":
    launch(main, "tuner.enqueue")
