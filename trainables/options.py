"""Options that every command has, and that of all which open a run."""

from typing import Annotated

import typer

from trainables.console import answer_as_json
from trainables.extensions import trust_code

AsJson = Annotated[
    bool,
    typer.Option("--json", callback=answer_as_json, help="Print the answer as one JSON document on stdout, and all else on stderr."),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", callback=trust_code, help="Execute the extensions (Python code) that come with a run, though they never ran here."
    ),
]
