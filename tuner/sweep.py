"""A whole search: prepare, run the trials on Ray, sum up."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.search import Searcher
from rich.console import Console
from rich.live import Live
from rich.text import Text

from search_spaces.write import space_text
from trainables.config import TrialConfig
from trainables.data.splits import split_table
from trainables.data.training import Data
from trainables.data.view_store import cache_folder
from trainables.data.views import View
from trainables.record import SPACE, SPLIT, RunCard, RunError, write_run
from trainables.restore_data import EXTRA
from trainables.storage import Folder, remove_partials, write_whole
from trainables.trial import Job, Shelf, run_trial
from trainables.versions import code_version
from tuner import cluster
from tuner.board import Board, Row
from tuner.callbacks import Driver
from tuner.lock import hold
from tuner.options import Options
from tuner.prepare import Plan, prepare, refuse_taken
from tuner.rehearsal import Memory, measure_here
from tuner.resume import Earlier, Stock, open_run, settle, take_stock
from tuner.retention import Retention
from tuner.search import OptunaSearcher
from tuner.stopping import Asha, Rungs, SoftStop, spares
from tuner.summary import resume_command, summarize

# Makes what proposes trials. It is told of those that there are, and asks whether the search is coming to its end.
MakeSearcher = Callable[[Plan, cluster.Slots, Stock, Callable[[], bool]], Searcher]


@dataclass(frozen=True)
class Work:
    """How one command trains the trials of a plan."""

    write: Callable[[], None]  # what all trials share, onto the disk
    searcher: MakeSearcher
    summarize: Callable[[Board, float, SoftStop], None]  # told the seconds that the command took
    go_on: str  # the command that goes on
    others: Mapping[int, Data] = field(default_factory=dict)  # see Job


def sweep(options: Options, console: Console, joined: cluster.Cluster | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        joined: the Ray cluster, where it is up already; else it is started when it is needed.

    Raises: SpaceError, ConfigError, DataError, RunError, StorageError, ClusterError for what the user can mend. No record is touched then.
    """
    start = perf_counter()
    with ExitStack() as stack:
        earlier = open_run(options.resume) if options.resume else None
        if earlier:
            refuse_refit(earlier.run, earlier.card)
            stack.enter_context(hold(earlier.run))
            options = with_shares_of(earlier.card, options)
        plan = prepare(options, earlier, has_gpu=joined.gpus > 0 if joined else torch.cuda.is_available(), console=console)
        if options.dry_run:
            sound = f"{plan.drawn} configurations drawn, {len(plan.rehearsed)} trained for a step, all sound"
            console.print(f"Dry run: {sound}. Nothing was written.", highlight=False)
            return 0
        if earlier is None:
            stack.enter_context(claim(plan.run))
        work = Work(
            write=lambda: write_plan(plan, earlier, options),
            searcher=optuna_searcher,
            summarize=lambda board, seconds, soft_stop: summarize(plan, board, seconds, soft_stop, console),
            go_on=resume_command(plan.run),
        )
        return train_and_sum_up(
            work, plan, options, lambda: joined or cluster.start(options.address, dashboard=options.dashboard), start, console
        )


@contextmanager
def claim(run: Folder) -> Iterator[None]:
    """Make the folder of a new run and keep others from it. Raises: RunError where another command was quicker."""
    run.mkdir(parents=True, exist_ok=True)
    with hold(run):
        refuse_taken(run)
        yield


def refuse_refit(run: Folder, card: RunCard) -> None:
    """Raises: RunError for a run that holds chosen configurations, to which a search has nothing to add."""
    if card.refit_of:
        mend = f"go on with: {resume_command(run, 'tuner.refit')}"
        raise RunError(f"{card.name} holds refits of {card.refit_of}, and a search has nothing to add to them; {mend}")


def train_and_sum_up(work: Work, plan: Plan, options: Options, join: Callable[[], cluster.Cluster], start: float, console: Console) -> int:
    """Train the trials of a plan that are not trained yet, and return the command's exit code.

    Args:
        join: gives the Ray cluster, started where it is not up yet.
        start: when the command began, by `perf_counter`.
    """
    log = log_file(plan.run)
    cluster.log_to(log)
    joined = join()
    slots = cluster.Slots(*resources(options, joined, plan, console), waiting=1 if options.address else 0)
    remove_partials(plan.run)
    work.write()
    cluster.check_nodes(plan.run)
    stock = take_stock(plan.run, plan.space, plan.fixed, retry=plan.settings.retries > 0)
    share = f"{slots.gpus:g} GPU and {slots.cpus} CPU" if slots.gpus else f"{slots.cpus} CPU"
    at_a_time = f"{slots()} trials at a time, {share} each. Records: "
    console.print(Text.assemble(at_a_time, (str(plan.run), "bold"), f". Ray's log: {log}"))
    if joined.dashboard:
        console.print(f"Ray dashboard: {joined.dashboard} (it asks for a token; print it with: {joined.token})", highlight=False)

    soft_stop = SoftStop(options.time_budget)
    board = Board(plan.settings.trials, plan.settings.epochs, ", ".join(plan.attributes), soft_stop.deadline)
    job = Job(plan.run.resolve(), plan.data, code_version(), slots.cpus, shelf(options, plan), work.others)
    try:
        with soft_stop.listening():
            search(plan, job, slots, stock, board, soft_stop, console, searcher=work.searcher)
    except KeyboardInterrupt:
        console.print(Text.assemble("Stopped at once. Go on with: ", (work.go_on, "bold")))
        return soft_stop.code or 130
    work.summarize(board, perf_counter() - start, soft_stop)
    return soft_stop.code


def with_shares_of(card: RunCard, options: Options) -> Options:
    """The options with what each trial of the earlier run was given, where they do not say otherwise."""
    names = [name for name in ("cpus_per_trial", "gpus_per_trial") if getattr(options, name) is None]
    return replace(options, **{name: getattr(card, name) for name in names})


def log_file(run: Folder) -> Path:
    """Where Ray's words go: into the run's folder, or, an object store being unable to append, into the cache."""
    if isinstance(run, Path):
        return run / "ray.log"
    logs = cache_folder() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs / f"{run.name}.log"


def write_plan(plan: Plan, earlier: Earlier | None, options: Options) -> None:
    """Write run.json, space.yaml and, for a new run, split.csv and extra.csv."""
    photos, split = plan.data.photos, plan.data.split
    if earlier is None:
        write_whole(plan.run / SPLIT, split_table(photos, split, plan.digests))
        if plan.extra:
            write_whole(plan.run / EXTRA, plan.extra)
    header = f"The space of {plan.run.name} with all that was laid over it. To change it, copy it, edit the copy, and go on with:\n"
    space = plan.space.with_run(plan.settings.model_dump())
    write_whole(plan.run / SPACE, space_text(space, f"{header}{resume_command(plan.run)} --space <the copy>").encode())
    write_run(
        plan.run,
        RunCard(
            name=plan.run.name,
            space=plan.space.name,
            data=str(plan.folder.resolve()),
            cuts=plan.sides.cuts,
            seed=plan.seed,
            split=split.hash,
            attributes=tuple(attribute.plain() for attribute in photos.scheme.attributes),
            epochs=plan.settings.epochs,
            trials=plan.settings.trials,
            command=earlier.card.command if earlier else shlex.join(["python", "-m", "tuner.run", *sys.argv[1:]]),
            predicts=plan.attributes,
            metric=plan.settings.metric,
            cpus_per_trial=options.cpus_per_trial,
            gpus_per_trial=options.gpus_per_trial,
        ),
    )


def resources(options: Options, joined: cluster.Cluster, plan: Plan, console: Console) -> tuple[int, float]:
    """CPUs and GPUs (or a share of one) for each trial."""
    if not joined.gpus:
        return options.cpus_per_trial or 1, 0.0
    gpus = options.gpus_per_trial
    if gpus is None:
        measure = ray.remote(num_gpus=1, max_calls=1)(measure_here)
        memory = ray.get(measure.remote(plan.rehearsed, plan.data))
        tell_too_large([plan.rehearsed[position] for position in memory.too_large], memory, console)
        gpus = cluster.share_of_gpu(memory.peak, memory.size)
        gpus = max(gpus, joined.gpus / joined.cpus)  # every trial needs a core
    return options.cpus_per_trial or max(1, int(joined.cpus * gpus / joined.gpus) if gpus else 1), gpus


def tell_too_large(configurations: list[dict[str, Any]], memory: Memory, console: Console) -> None:
    """Which configurations a whole GPU is too small for, unless their batches go through in parts."""
    for config in map(TrialConfig.from_values, configurations):
        what = f"{config.model.backbone} at {View.of(config.view)} with batches of {config.train.batch_size}"
        does = f"does not fit the GPU's {memory.size / 1e9:.1f} GB at once: its batches go through in parts, each trial gets a whole GPU"
        console.print(f"{what} {does}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def shelf(options: Options, plan: Plan) -> Shelf | None:
    """Where nodes of a cluster get decoded images from; trials of this machine alone have them at hand."""
    if options.address is None:
        return None
    files = [file for views in (plan.data.views, *(extra.views for extra in plan.data.extra)) for file in views.values()]
    return Shelf(cluster.lend_files(files))


def optuna_searcher(plan: Plan, slots: cluster.Slots, stock: Stock, stopping: Callable[[], bool]) -> Searcher:
    """TPE over the plan's space."""
    return OptunaSearcher(
        plan.space,
        plan.fixed,
        seed=plan.seed,
        trials=plan.settings.trials,
        slots=slots,
        stopping=stopping,
        earlier=stock.kept,
        going_on=stock.proposals,
    )


def search(
    plan: Plan,
    job: Job,
    slots: cluster.Slots,
    stock: Stock,
    board: Board,
    soft_stop: SoftStop,
    console: Console,
    *,
    trainable: Callable[[dict[str, Any], Job], None] = run_trial,
    searcher: MakeSearcher = optuna_searcher,
) -> None:
    """Let Ray Tune train the trials that are proposed, with the live table on a terminal and a line per ended trial elsewhere.

    Args:
        stock: trials of earlier commands.
        trainable: what trains a proposal; takes it and the job.
    Raises: KeyboardInterrupt at a second signal; no process of a trial is left then, and the records are closed.
    """
    settings = plan.settings
    live = Live(board, console=console, refresh_per_second=2) if console.is_terminal else None

    def show(row: Row) -> None:
        if not live and row.state != "running":
            best = f"best {row.best:.4f}" if row.best is not None else "no score"
            words = f"trial {row.number} {row.state} at epoch {row.epoch}, {best}: {row.differs}"
            console.print(words, highlight=False, markup=False, soft_wrap=True)

    asha = Asha(
        Rungs(grace=settings.grace, reduction=settings.reduction, epochs=settings.epochs),
        spared=spares(settings.keep_running if settings.early_stopping else 1.0),
        judged=lambda number, decision: driver.judged(number, decision),
    )
    driver = Driver(
        job.run,
        space=plan.space,
        board=board,
        asha=asha,
        soft_stop=soft_stop,
        retention=Retention(job.run, settings.keep),
        show=show,
    )
    stock = settle(stock, job.run, asha)
    tell_stock(stock, console)
    driver.know(stock.kept, stock.going_on)
    left = max(settings.trials - len(stock.kept), len(stock.proposals))
    if not left:
        return
    # All workers start at once; by default Tune starts the second when the first one is up.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots())
    # Tune keeps a state of its own for a resume that we do not use: the records are the truth.
    with TemporaryDirectory(prefix="sweepvote-") as aside:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, job=job), {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher(plan, slots, stock, lambda: soft_stop.asked),
                scheduler=asha,
                num_samples=left,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name=job.run.name,
                storage_path=aside,
                verbose=0,
                callbacks=[driver],
                stop=soft_stop,
                failure_config=tune.FailureConfig(max_failures=settings.retries),
            ),
        )
        try:
            with live or nullcontext():
                tuner.fit()
        except KeyboardInterrupt:
            cluster.stop()
            driver.close_running()
            raise


def tell_stock(stock: Stock, console: Console) -> None:
    """What becomes of the trials of earlier commands."""
    going_on = [f"{record.number} (after epoch {len(record.reports)})" for record in stock.going_on if record.result.attempt]
    if not (stock.kept or going_on or stock.damaged):
        return
    console.print(f"{len(stock.ended)} trials are kept as they ended", highlight=False)
    if going_on:
        console.print(f"{len(going_on)} go on: trial {', '.join(going_on)}", highlight=False, soft_wrap=True)
    if stock.misfits:
        numbers = ", ".join(str(record.number) for record in stock.misfits)
        console.print(f"{len(stock.misfits)} stay interrupted, the space has no place for them now: trial {numbers}", style="yellow")
    for item in stock.damaged:
        console.print(f"damaged, set aside in damaged/ and run again: {item}", style="yellow", markup=False, soft_wrap=True)
