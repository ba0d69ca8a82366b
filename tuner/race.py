"""`python -m tuner.race --run faces`: train the best configurations of a search on its other folds, fold by fold."""

from typing import Annotated

import typer

from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import Address, CpusPerTrial, Dashboard, GpusPerTrial, Options, Retries, SearchedData, Start, TimeBudget, carry_out


def main(
    run: Annotated[str, typer.Option(help="The search whose finalists are raced: its name, folder or address.")],
    finalists: Annotated[
        int | None, typer.Option(min=1, help="Configurations that are raced, the baseline and the best probe among them. Default: 4.")
    ] = None,
    data: SearchedData = None,
    time_budget: TimeBudget = None,
    retries: Retries = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    address: Address = None,
    dashboard: Dashboard = True,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Race the best configurations of a search over its other folds.

    Each finalist is trained on one fold after the other; after each fold those are dropped that are significantly worse than the best.
    What is left has one model per fold, so all images but the hold-out's train, and analysis.ensemble answers with their means:

        python -m tuner.race --run faces

        python -m analysis.ensemble --top 3 --run faces

    The models are kept in RUN/finalists. Ctrl-C, SIGTERM and the end of --time-budget stop softly; the same command resumes.
    """
    # Every option but --run and --json is a field of the same name.
    options = Options(**{name: value for name, value in locals().items() if name not in ("run", "trust_code", "as_json")})
    console = output()

    def work(start: Start) -> int:
        from tuner.racing import race

        return race(run, options, console, start)

    carry_out(work, console, address=address, dashboard=dashboard)


if __name__ == "__main__":
    launch(main, "tuner.race")
