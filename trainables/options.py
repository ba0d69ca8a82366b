"""Options that every command has."""

from typing import Annotated

import typer

from trainables.console import answer_as_json

AsJson = Annotated[
    bool,
    typer.Option("--json", callback=answer_as_json, help="Print the answer as one JSON document on stdout, and all else on stderr."),
]
