"""`python -m tuner.run --space quickstart.yaml`: search a space, keep every trial's record, print the best trials."""

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.read import shipped_spaces
from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import (
    OF_DATA,
    Address,
    CpusPerTrial,
    Dashboard,
    Data,
    GpusPerTrial,
    Group,
    LabelPattern,
    LayoutName,
    NumberColumn,
    Options,
    Retries,
    Start,
    TagColumns,
    Target,
    TimeBudget,
    Watch,
    carry_out,
    data_changes,
    trial_count,
)

# Options that are short for settings of the section run.
OF_RUN = ("metric", "searcher", "pruner")


def folder_of(data: str | None, files: list[str]) -> str | None:
    """What --data means: itself, or the folder of the files that a shell made of a pattern. Raises: typer.BadParameter."""
    if not files:
        return data
    every = {Path(file) for file in (*files, *([data] if data else []))}
    kinds = {(file.parent, file.suffix) for file in every}
    if data is None or len(kinds) > 1:
        raise typer.BadParameter(f"--data takes one file or folder, and there are {len(every)}: {', '.join(map(str, sorted(every)[:5]))}")
    ((folder, suffix),) = kinds
    if {*folder.glob(f"*{suffix}")} != every:
        raise typer.BadParameter(f"--data names {len(every)} of the files *{suffix} in {folder}; name one, or the folder")
    return str(folder)


def run(
    files: Annotated[list[str] | None, typer.Argument(hidden=True, help="What a shell makes of --data export/*.parquet.")] = None,
    space: Annotated[str | None, typer.Option(help=f"A YAML file, or a shipped space: {', '.join(shipped_spaces())}.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Resume a run, by its name or folder: finished trials are kept, interrupted ones continue after their last epoch.",
        ),
    ] = None,
    data: Data = None,
    target: Target = None,
    tags: TagColumns = None,
    number: NumberColumn = None,
    group: Group = None,
    label_pattern: LabelPattern = None,
    layout: LayoutName = None,
    trials: Annotated[
        str | None,
        typer.Option(
            parser=trial_count, metavar="N", help="Number of trials; with --resume also +N for N more. Default: the space's, or 20."
        ),
    ] = None,
    time_budget: TimeBudget = None,
    name: Annotated[str | None, typer.Option(help="The run's folder in the storage. Default: the space's name and a number.")] = None,
    storage: Annotated[
        str, typer.Option(help="Where runs are kept: a folder, or an address such as s3://bucket/runs. Every node must reach it.")
    ] = "runs",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the split, of each trial's weights and batches, and of the search. Default: 0.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric by which trials and votes are chosen; short for --set run/metric=NAME.")
    ] = None,
    searcher: Annotated[str | None, typer.Option(help="Search algorithm, such as tpe; short for --set run/searcher=NAME.")] = None,
    pruner: Annotated[str | None, typer.Option(help="Pruner of bad trials, such as asha; short for --set run/pruner=NAME.")] = None,
    early_stopping: Annotated[
        bool | None, typer.Option("--early-stopping/--no-early-stopping", help="Let the pruner stop bad trials early. Default: yes.")
    ] = None,
    keep_running: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of trials that are never pruned, to measure how reliable early scores are. Default: 0.05."),
    ] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="How many of the best trials keep their weights on disk. Default: 10.")] = None,
    retries: Retries = None,
    finalists: Annotated[
        int | None, typer.Option(min=0, help="Configurations that are trained on the other folds after the search; 0: none. Default: 4.")
    ] = None,
    answer: Annotated[
        bool | None,
        typer.Option("--answer/--no-answer", help="End with the answer of analysis.ensemble, not with a table of trials. Default: no."),
    ] = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    address: Address = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the space: loss/gamma=2, run/epochs=3. Repeatable."),
    ] = None,
    dashboard: Dashboard = True,
    watch: Watch = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train one step of each kind of trial, and exit.")] = False,
    allow_bad_images: Annotated[
        bool,
        typer.Option(
            "--allow-bad-images", "--allow-bad-photos", help="Leave out images that cannot be decoded, even if they are more than 5 %."
        ),
    ] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Search a space for the best models, on all cores and GPUs.

    Each trial has a record in runs/NAME/trials/. The best ones are then trained on the other folds (tuner.race), and analysis.ensemble
    makes an ensemble of them; with --answer this command ends with it:

        python -m tuner.run --space quickstart.yaml

        python -m tuner.run --space mobilenet.yaml --data photos --time-budget 2h --answer

        python -m analysis.ensemble --top 3 --run NAME

    Ctrl-C, SIGTERM and the end of --time-budget stop softly: every running trial reports, and `--resume NAME` continues with nothing
    lost, after a crash too. `--resume NAME --trials +20` extends a search, `--resume NAME --space edited.yaml` changes its space.
    """
    given = dict(locals())
    for name in ("trust_code", "as_json"):
        given.pop(name)
    given["data"] = folder_of(data, given.pop("files") or [])
    named = {name: value for name in OF_RUN if (value := given.pop(name)) is not None}
    of_data = data_changes({name: given.pop(name) for name in OF_DATA})
    console = output()

    def work(start: Start) -> int:
        from tuner.searching import search

        # Every option is a field of the same name.
        short = (*(f"run/{name}={value}" for name, value in named.items()), *of_data)
        changed = (*(changes or ()), *short)
        return search(Options(**given | {"changes": changed}), console, start)

    carry_out(work, console, address=address, dashboard=dashboard)


if __name__ == "__main__":
    launch(run, "tuner.run")
