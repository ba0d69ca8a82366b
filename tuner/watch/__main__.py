"""`python -m tuner.watch RUN`: a page that shows a run live."""

import sys
from threading import Event
from typing import Annotated

import typer

from search_spaces.errors import UserError
from trainables.commands import launch
from trainables.console import complain, document, output
from trainables.options import AsJson, TrustCode
from trainables.record import find_run, open_run


def main(
    run: Annotated[str, typer.Argument(help="A run's name in runs/, its folder, or its address.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the address; 0: one that is free.")] = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Watch a run in the browser: trials, learning curves, what runs where, time left, the best so far.

        python -m tuner.watch faces

    The page refreshes itself, and stops, spares and adds trials by click while the run is searched; of one that is not it shows what is
    there. Only this machine can open it; from elsewhere, through ssh -L 8000:127.0.0.1:8000 with --port 8000. tuner.run --watch does the
    same from the search's own process. Ctrl-C ends the page, not the search.

    Exit codes: 2 it cannot be shown, 130 Ctrl-C.
    """
    try:
        folder = find_run(run)
        open_run(folder)
        from tuner.watch.server import serving

        with serving(folder, port) as server:
            output().print(f"Watch {folder.name} at {server.address}  (Ctrl-C ends the page, not the search)", soft_wrap=True)
            document({"address": server.address})
            sys.stdout.flush()
            Event().wait()
    except UserError as error:
        complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    launch(main, "tuner.watch")
