"""`python -m tuner.run --space quickstart.yaml`: search a space, keep every trial's record, print what was found."""

import re
import sys
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer
from rich.console import Console

from search_spaces.read import shipped_spaces

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """`90`, `90s`, `20m`, `1.5h` or `2d` in seconds. Raises: typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is no length of time; write 90s, 20m or 1.5h")
    return float(match[1]) * UNITS[match[2] or "s"]


def run(
    space: Annotated[str, typer.Option(help=f"A YAML file, or a shipped space: {', '.join(shipped_spaces())}.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that holds train/train.csv and train/images/. Default: drawn people, for a demo."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations to try; overrides run/trials of the space.")] = None,
    time_budget: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="End the search after this long: 90s, 20m, 1.5h.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's folder below runs/. Default: the space's name and a number.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, of every trial's weights and batches, and of the proposals.")] = 0,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs, or a share of one, for each trial. Default: measured, as many as fit share one."),
    ] = None,
    cpus_per_trial: Annotated[
        int | None, typer.Option(min=1, help="CPU cores and threads for each trial. Default: 1, or with GPUs an even share.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Join the Ray cluster at this address. Default: this machine alone.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the space: loss/gamma=2, run/epochs=3. Repeatable."),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Serve Ray's dashboard on this machine.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, train one step of each kind of trial, and stop there.")] = False,
    allow_bad_photos: Annotated[
        bool, typer.Option("--allow-bad-photos", help="Go on though over 5 % of the photos cannot be decoded.")
    ] = False,
) -> None:
    """Search a space for the best models, on every core and GPU there is.

    Each trial leaves a record in runs/NAME/trials/; afterwards
    `python -m analysis.ensemble --top 3 --run NAME` lets the best ones vote.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    # Imported here: Ray, torch and timm take seconds, and --help needs none of them.
    from search_spaces.schema import SpaceError
    from trainables.config import ConfigError
    from trainables.data.photos import DataError
    from trainables.record import RunError
    from tuner import cluster

    try:
        # Ray's servers start while this process imports torch. A dry run needs no Ray.
        importing = Thread(target=import_module, args=("timm",))
        importing.start()
        joined = None if dry_run else cluster.start(address, dashboard=dashboard)
        importing.join()
        from tuner.prepare import Options
        from tuner.sweep import sweep

        options = Options(
            space=space,
            data=data,
            trials=trials,
            time_budget=time_budget,
            name=name,
            seed=seed,
            gpus_per_trial=gpus_per_trial,
            cpus_per_trial=cpus_per_trial,
            address=address,
            changes=tuple(changes or ()),
            dashboard=dashboard,
            dry_run=dry_run,
            allow_bad_photos=allow_bad_photos,
        )
        code = sweep(options, console, joined)
    except (SpaceError, ConfigError, DataError, RunError, cluster.ClusterError) as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
        code = 2
    except KeyboardInterrupt:
        console.print("Stopped by Ctrl-C.")
        code = 130
    finally:
        # Left to the end of the process, Ray waits a minute for a server that is gone.
        cluster.stop()
    sys.exit(code)


if __name__ == "__main__":
    typer.run(run)
