"""`python -m tuner.refit --run faces --top 3 --folds 5`: train the chosen configurations of a search again."""

import re
from typing import Annotated, Literal

import typer

from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import Address, CpusPerTrial, Dashboard, GpusPerTrial, Options, Retries, SearchedData, Start, TimeBudget, carry_out


def numbers(text: str) -> tuple[int, ...]:
    """`4,7` as numbers of trials. Raises: typer.BadParameter."""
    if not re.fullmatch(r"\d+(,\d+)*", text.replace(" ", "")):
        raise typer.BadParameter(f"{text!r} is not a list of trial numbers; write 4,7")
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def main(
    run: Annotated[str | None, typer.Option(help="The search whose configurations are trained again: its name, folder or address.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="REFIT", help="Resume interrupted refits, by the name or folder of their own run.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="The best finished trials by the run's metric on validation. Default: 3.")] = None,
    trials: Annotated[
        tuple | None, typer.Option(parser=numbers, metavar="4,7", help="These trials instead of the best ones; each needs a score.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Train each configuration once per fold (as many as the run has), for out-of-fold scores."),
    ] = None,
    all_data: Annotated[
        bool,
        typer.Option("--all-data", help="Train on train and validation together: only the hold-out (test) is left to evaluate on."),
    ] = False,
    epochs_from: Annotated[
        Literal["best", "all"] | None,
        typer.Option(
            help="--all-data: train to the best epoch of the searched trial, with a schedule of that length, or all epochs. Default: best."
        ),
    ] = None,
    last_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="--all-data: go on from the searched trial's weights for N epochs in which its validation images alone train, at the "
            "learning rate it had N epochs before its best, down to 0.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train each with this many new seeds: the searched seed + 1000, + 2000, ... Without --folds and --all-data: on the "
            "search's own fold. Default: the searched seed.",
        ),
    ] = None,
    data: SearchedData = None,
    name: Annotated[str | None, typer.Option(help="The new run's folder in the storage. Default: RUN-refit, RUN-refit-2, ...")] = None,
    storage: Annotated[str | None, typer.Option(help="Where the new run is: a folder or an address. Default: beside the search.")] = None,
    time_budget: TimeBudget = None,
    retries: Retries = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    address: Address = None,
    dashboard: Dashboard = True,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train the best configurations of a search again: on every fold, on all data, with other seeds.

    With --folds each fold is predicted by a model that did not train on it, which gives one score over all groups but the hold-out.
    With --all-data models train on all but the hold-out, on which analysis.ensemble evaluates them; with --last-epochs 3 they do so in
    the last 3 epochs, from the searched trial's weights. --seeds shows how much of a score is chance.

        python -m tuner.refit --run faces --top 3 --folds 5

        python -m tuner.refit --run faces --trials 4,7 --all-data

        python -m tuner.refit --run faces --top 3 --all-data --last-epochs 3

    The folds are those of the run's split.csv, and the hold-out groups never train. The trials are Ray trials with records like all
    others, in a run of their own. Ctrl-C, SIGTERM and the end of --time-budget stop softly; resume with `--resume RUN-refit`.
    """
    console = output()
    options = Options(
        resume=resume,
        data=data,
        time_budget=time_budget,
        name=name,
        retries=retries,
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        address=address,
        dashboard=dashboard,
    )

    def work(start: Start) -> int:
        from tuner.refits import RefitOptions
        from tuner.refitting import refit

        refit_options = RefitOptions(run or "", top, trials or (), folds, all_data, epochs_from, last_epochs, seeds, storage)
        return refit(refit_options, options, console, start)

    carry_out(work, console, address=address, dashboard=dashboard)


if __name__ == "__main__":
    launch(main, "tuner.refit")
