"""A whole search: prepare, run the trials on Ray, sum up."""

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import ray
import torch
from ray import tune
from rich.console import Console
from rich.live import Live

from trainables.data.splits import write_split
from trainables.record import RunCard, write_run
from trainables.trial import Job, run_trial
from tuner import cluster, preflight
from tuner.board import Board, Row
from tuner.callbacks import Driver
from tuner.prepare import Options, Plan, prepare
from tuner.retention import Retention
from tuner.search import OptunaSearcher
from tuner.stopping import Asha, Rungs, SoftStop
from tuner.summary import summarize

RETRIES = 2  # of a trial whose worker died; it goes on after its last whole epoch


def sweep(options: Options, console: Console, joined: cluster.Cluster | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        joined: the Ray cluster, where it is up already; else it is started when it is needed.

    Raises: SpaceError, ConfigError, DataError, RunError, ClusterError for what the user can mend; nothing is written to runs/ then.
    """
    start = perf_counter()
    plan = prepare(options, has_gpu=joined.gpus > 0 if joined else torch.cuda.is_available(), console=console)
    if options.dry_run:
        sound = f"{plan.drawn} configurations drawn, {len(plan.rehearsed)} trained for a step, all sound"
        console.print(f"Dry run: {sound}. Nothing was written.", highlight=False)
        return 0

    run, photos, split = plan.run, plan.data.photos, plan.data.split
    run.mkdir(parents=True)
    cluster.log_to(run / "ray.log")
    joined = joined or cluster.start(options.address, dashboard=options.dashboard)
    cpus, gpus = resources(options, joined, plan)
    slots = max(1, int(min(joined.cpus // cpus, joined.gpus / gpus if gpus else joined.cpus)))
    write_run(run, run_card(plan, options.seed))
    write_split(run / "split.csv", photos, split)
    share = f"{gpus:g} GPU and {cpus} CPU" if gpus else f"{cpus} CPU"
    console.print(f"{slots} trials at a time, {share} each. Records: [bold]{run}[/]. Ray's log: {run}/ray.log", highlight=False)
    if joined.dashboard:
        console.print(f"Ray dashboard: {joined.dashboard} (it asks for a token; print it with: ray get-auth-token)", highlight=False)

    soft_stop = SoftStop(options.time_budget)
    board = Board(plan.settings.trials, plan.settings.epochs, slots, ", ".join(plan.attributes), soft_stop.deadline)
    search(plan, Job(run.resolve(), plan.data, code_version(), cpus), (cpus, gpus), board, soft_stop, console)
    summarize(run, plan.space, board, photos, split, perf_counter() - start, soft_stop, console)
    return 130 if soft_stop.reason == "Ctrl-C" else 0


def run_card(plan: Plan, seed: int) -> RunCard:
    """What all trials of the run share, for its run.json."""
    return RunCard(
        name=plan.run.name,
        space=plan.space.name,
        data=str(plan.folder.resolve()),
        cuts=plan.sides.cuts,
        seed=seed,
        split=plan.data.split.hash,
        attributes=tuple((attribute.name, attribute.values) for attribute in plan.data.photos.scheme.attributes),
        epochs=plan.settings.epochs,
        trials=plan.settings.trials,
        command=shlex.join(["python", "-m", "tuner.run", *sys.argv[1:]]),
    )


def resources(options: Options, joined: cluster.Cluster, plan: Plan) -> tuple[int, float]:
    """CPUs and GPUs (or a share of one) for each trial."""
    if not joined.gpus:
        return options.cpus_per_trial or 1, 0.0
    gpus = options.gpus_per_trial
    if gpus is None:
        measure = ray.remote(num_gpus=1, max_calls=1)(preflight.peak_memory)
        gpus = cluster.share_of_gpu(*ray.get(measure.remote(plan.rehearsed, plan.data)))
        gpus = max(gpus, joined.gpus / joined.cpus)  # every trial needs a core
    return options.cpus_per_trial or max(1, int(joined.cpus * gpus / joined.gpus) if gpus else 1), gpus


def search(plan: Plan, job: Job, share: tuple[int, float], board: Board, soft_stop: SoftStop, console: Console) -> None:
    """Let Ray Tune train the trials that Optuna proposes, with the live table on a terminal and a line per ended trial elsewhere."""
    settings, (cpus, gpus) = plan.settings, share
    asha = Asha(Rungs(grace=settings.grace, reduction=settings.reduction, epochs=settings.epochs))
    live = Live(board, console=console, refresh_per_second=2) if console.is_terminal else None

    def show(row: Row) -> None:
        if not live and row.state != "running":
            best = f"best {row.best:.4f}" if row.best is not None else "no score"
            words = f"trial {row.number} {row.state} at epoch {row.epoch}, {best}: {row.differs}"
            console.print(words, highlight=False, markup=False, soft_wrap=True)

    driver = Driver(
        job.run,
        space=plan.space,
        board=board,
        asha=asha,
        soft_stop=soft_stop,
        retention=Retention(job.run, settings.keep),
        show=show,
    )
    # All workers start at once; by default Tune starts the second when the first one is up.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(board.slots)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, job=job), {"cpu": cpus, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearcher(plan.space, plan.fixed, seed=plan.fixed["seed"], trials=settings.trials, slots=board.slots),
            scheduler=asha,
            num_samples=settings.trials,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(job.run),
            verbose=0,
            callbacks=[driver],
            stop=soft_stop,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
        ),
    )
    soft_stop.listen()
    try:
        with live or nullcontext():
            tuner.fit()
    finally:
        # Tune's own state serves a resume that we do not use: the records are the truth.
        shutil.rmtree(job.run / "ray", ignore_errors=True)


def code_version() -> str:
    """The commit of this project where it is a checkout, with `-dirty` when files differ from it; else its version."""
    root = Path(__file__).parent.parent
    described = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    if described.returncode == 0:
        return described.stdout.strip()
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
