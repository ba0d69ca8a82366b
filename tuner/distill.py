"""`python -m tuner.distill --ensemble runs/faces/ensemble`: train one network on what a vote answers."""

from pathlib import Path
from typing import Annotated

import typer

from trainables.commands import launch
from trainables.console import output
from trainables.options import AsJson, TrustCode
from tuner.cli import (
    Address,
    CpusPerTrial,
    Dashboard,
    GpusPerTrial,
    Options,
    Retries,
    SearchedData,
    Start,
    TimeBudget,
    TrialCount,
    carry_out,
)


def main(
    ensemble: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The teacher: the folder of an ensemble, runs/<run>/ensemble, or its address.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Resume an interrupted student by its run's name or folder, or tell again what it keeps."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="The student's network, any of timm's; all else is as in the best single model. Default: that model's network."),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="In place of --backbone: a space, which is searched for the best student. Its run section says how.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Images without labels, which the teacher answers and the student trains on, too.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="--space: number of students. Default: the space's, or 20.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Maximum epochs. Default: those of the best single model, or the space's.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the student: optimizer/lr=0.002, labels/teacher=0.7. Repeatable."),
    ] = None,
    data: SearchedData = None,
    name: Annotated[
        str | None, typer.Option(help="The new run's folder beside the search. Default: RUN-student, RUN-student-2, ...")
    ] = None,
    time_budget: TimeBudget = None,
    retries: Retries = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    address: Address = None,
    dashboard: Dashboard = True,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train one network, the student, on what a vote answers: one model to ship, for a part of the vote's price.

    Each training image is taught with the vote's probabilities in place of its label: those of models that did not train on it, where the
    search was raced over its folds (tuner.race). The hold-out says which share of the vote's gain over the best single model is kept.

        python -m tuner.distill --ensemble runs/faces/ensemble

        python -m tuner.distill --ensemble runs/faces/ensemble --backbone mobilenetv3_small_100 --images more_photos

    The student's run holds the vote's answers, so it needs no teacher to resume. It is a search like others: it votes, predicts, exports,
    and can be extended, raced or refitted. Ctrl-C, SIGTERM and the end of --time-budget stop softly; --resume continues.

    Exit codes: 0 done, 2 the user's mistake, 130 and 143 stopped.
    """
    options = Options(
        resume=resume,
        space=space,
        data=data,
        trials=TrialCount(trials) if trials else None,
        time_budget=time_budget,
        name=name,
        retries=retries,
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        address=address,
        changes=(*(changes or ()), *([f"run/epochs={epochs}"] if epochs else ())),
        dashboard=dashboard,
    )
    console = output()

    def work(start: Start) -> int:
        from tuner.distilling import distill

        return distill(ensemble, backbone, images, options, console, start)

    carry_out(work, console, address=address, dashboard=dashboard)


if __name__ == "__main__":
    launch(main, "tuner.distill")
