"""`sweepvote COMMAND`: the same commands as `python -m tuner.run`, `python -m analysis.ensemble` ..., under one name."""

import os
import runpy
import signal
import sys
from importlib.metadata import version

from trainables.commands import COMMANDS, OURS
from trainables.console import STOPPED, complain, open_console
from trainables.registry import nearest

HELP = """Distributed hyper-parameter search for image classifiers that ends in an ensemble one can believe.

    sweepvote search --space quickstart.yaml --answer               # a demo: drawn images, some minutes without a GPU
    sweepvote search --space effnet.yaml --data photos --time-budget 8h --answer --name faces
    sweepvote report --run faces
    sweepvote predict --ensemble runs/faces/ensemble --photos new --out answers.csv
"""
CODES = (
    "Exit codes: 0 done, 1 not all of it could be done, 2 a mistake to correct (nothing was changed), "
    "130 stopped by Ctrl-C, 143 by SIGTERM or `sweepvote stop`."
)


def main() -> None:
    """Run the command that is named, as its module would be; without a name, list them."""
    match sys.argv[1:]:
        case [] | ["--help" | "-h" | "help"]:
            show_help()
        case ["--version"]:
            print(f"sweepvote {version('sweepvote')}")
        case ["resume"]:
            complain("resume takes the name, folder or address of a run; sweepvote runs lists those that there are")
            sys.exit(2)
        case [name, *words] if name in COMMANDS:
            module, *first = COMMANDS[name].words.split()
            os.environ[OURS] = name
            # `sweepvote resume --help` is the help of the module, which would take it for the run's name.
            sys.argv[1:] = words if first and words[:1] == ["--help"] else [*first, *words]
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except KeyboardInterrupt:  # while it was being imported
                complain(STOPPED)
                sys.exit(128 + signal.SIGINT)
        case [name, *_]:
            complain(f"{name}: is not a command{nearest(name, list(COMMANDS)) or '; sweepvote --help lists them'}")
            sys.exit(2)


def show_help() -> None:
    """Print what there is, in the order in which one would use it."""
    from rich.table import Table

    console = open_console(soft_wrap=True)
    console.print("Usage: sweepvote COMMAND [OPTIONS]\n", style="bold")
    console.print(HELP)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, command in COMMANDS.items():
        table.add_row(f"  {name}", command.help)
    console.print(table)
    console.print(f"\n`sweepvote COMMAND --help` says more. {CODES}")
