"""`python -m tuner.probe --space effnet.yaml --data photos`: what each backbone of a space sees, before anything is trained."""

from typing import Annotated

import typer

from search_spaces.read import shipped_spaces
from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import Address, CpusPerTrial, Dashboard, GpusPerTrial, Options, Start, TimeBudget, carry_out


def main(
    space: Annotated[str | None, typer.Option(help=f"A YAML file, or a shipped space: {', '.join(shipped_spaces())}.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with the probes of a run that was interrupted, by its name or folder.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="The images, as for tuner.run. Default: drawn images, for a demo.")
    ] = None,
    time_budget: TimeBudget = None,
    name: Annotated[str | None, typer.Option(help="The run's folder in the storage. Default: the space's name and a number.")] = None,
    storage: Annotated[str, typer.Option(help="Where runs are kept: a folder, or an address such as s3://bucket/runs.")] = "runs",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split. Default: 0.")] = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    address: Address = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the space: view/size=224, data/target=species. Repeatable."),
    ] = None,
    dashboard: Dashboard = True,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Fit linear heads to what the backbones of a space give without being trained, at each of its views, and rank them.

        python -m tuner.probe --space effnet.yaml --data photos

    Nothing but the heads is fitted, so each image goes through each network once: a first usable model within minutes. Every probe is a
    trial of a run, which votes, predicts and exports like others; `tuner.run --resume NAME` continues with the search. A search begins with
    the same probes by itself, unless its space says `run: {probe: false}`.

    Exit codes: 0 done, 2 the user's mistake, such as a space without weights, 130 and 143 stopped.
    """
    # Every option is a field of the same name.
    given = {name: value for name, value in locals().items() if name not in ("trust_code", "as_json")}
    options = Options(**given | {"changes": tuple(changes or ())})
    console = output()

    def work(start: Start) -> int:
        from tuner.searching import search

        return search(options, console, start, probe_only=True)

    carry_out(work, console, address=address, dashboard=dashboard)


if __name__ == "__main__":
    launch(main, "tuner.probe")
