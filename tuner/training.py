"""The trials of a plan are trained on Ray Tune and summed up."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from rich.console import Console
from rich.live import Live
from rich.text import Text

from analysis.evaluation.search.probes import probes_of
from trainables.baseline import baseline_of
from trainables.config import TrialConfig
from trainables.console import redraws
from trainables.data.view_store import cache_folder
from trainables.data.views import View
from trainables.devices import device_here
from trainables.progress import waiting
from trainables.storage import Folder, remove_partials
from trainables.trial import Job, Shelf, run_trial
from trainables.versions import code_version
from tuner import cluster
from tuner.board import Board, Row
from tuner.callbacks import Driver
from tuner.cli import Join, Options
from tuner.gain import GainSoFar
from tuner.patience import Patience
from tuner.prepare import Material, Plan
from tuner.probing import LONGEST, SHARE, first_tries, prior_of, probe
from tuner.rehearsal import Memory, measure_here
from tuner.requests import Inbox
from tuner.resume import Stock, settle, take_stock
from tuner.retention import Retention
from tuner.searchers import SEARCHERS
from tuner.searchers.journal import Journal
from tuner.searchers.study import StudySearcher
from tuner.stoppers.pruner import Pruner, never_stopped
from tuner.stoppers.soft_stop import SoftStop

# Makes the searcher. It gets the trials that there are, a function that says whether the search is ending, and what people ask for.
MakeSearcher = Callable[[Plan, cluster.Slots, Stock, Callable[[], bool], Inbox], Searcher]


@dataclass(frozen=True)
class Work:
    """How one command trains the trials of a plan."""

    plan: Plan
    material: Material
    began: float  # when the command began, by `perf_counter`
    write: Callable[[], None]  # what all trials share, onto the disk
    searcher: MakeSearcher
    summarize: Callable[[Board, float, SoftStop], None]  # gets the seconds that the command took
    resume: str  # the command that resumes the run
    held: Folder  # the run that this command holds, where it is asked to stop: its own, or the search whose finalists it races
    gain: GainSoFar | None = None  # keeps what a search gains over its baseline
    probe_only: bool = False  # whether the command ends with the probes
    reserve: Callable[[Board, cluster.Slots], Callable[[], float]] | None = None  # seconds of the budget that are kept for what follows


def train_and_sum_up(work: Work, options: Options, join: Join, console: Console) -> int:
    """Train the trials of a plan that are not trained yet, and return the command's exit code."""
    plan, material = work.plan, work.material
    log = log_file(plan.run)
    cluster.log_to(log)
    with waiting("starting Ray"):
        joined = join()
    slots = cluster.Slots(*resources(options, joined, work, console), waiting=1 if options.address else 0)
    remove_partials(plan.run)
    work.write()
    cluster.check_nodes(plan.run, plan.extensions)
    share = f"{slots.gpus:g} GPU and {slots.cpus} CPU" if slots.gpus else f"{slots.cpus} CPU"
    at_a_time = f"{slots()} trials at a time, {share} each. Records: "
    console.print(Text.assemble(at_a_time, (str(plan.run), "bold"), f". Ray's log: {log}"))
    if joined.dashboard:
        console.print(f"Ray dashboard: {joined.dashboard} (it needs a token; print it with: {joined.token})")

    budget = options.time_budget
    soft_stop = SoftStop(None if budget is None else budget - (perf_counter() - work.began))
    inbox = Inbox(plan.run, lambda words: console.print(words, style="yellow", soft_wrap=True))
    soft_stop.request = (inbox if work.held == plan.run else Inbox(work.held)).stopped
    board = Board(plan.settings.trials, plan.settings.epochs, plan.over, plan.settings.score(), soft_stop.deadline)
    if budget is not None and work.reserve:
        soft_stop.reserve = work.reserve(board, slots)
    searched = tuple(parameter.path for parameter in plan.space.parameters)
    job = Job(
        plan.run.resolve(), material.data, code_version(), slots.cpus, shelf(options, material), material.by_fold, searched, plan.extensions
    )
    try:
        with soft_stop.listening():
            if plan.settings.probe:
                seconds = math.inf if work.probe_only else LONGEST if budget is None else SHARE * budget
                probe(plan, job, slots, soft_stop, console, rehearsed=not work.probe_only, seconds=seconds)
            if not work.probe_only:
                stock = take_stock(plan.run, plan.space, plan.fixed, retry=plan.settings.retries > 0)
                search(plan, job, slots, stock, board, soft_stop, inbox, console, searcher=work.searcher, gain=work.gain)
    except KeyboardInterrupt:
        console.print(Text.assemble("Stopped at once. Resume with: ", (work.resume, "bold")), soft_wrap=True)
        return soft_stop.code or 130
    work.summarize(board, perf_counter() - work.began, soft_stop)
    return soft_stop.code


def log_file(run: Folder) -> Path:
    """Ray's log file: in the run's folder, or in the cache, as an object store cannot append."""
    if isinstance(run, Path):
        run.mkdir(parents=True, exist_ok=True)
        return run / "ray.log"
    logs = cache_folder() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs / f"{run.name}.log"


def resources(options: Options, joined: cluster.Cluster, work: Work, console: Console) -> tuple[int, float]:
    """CPUs and GPUs (or a share of one) for each trial."""
    if not joined.gpus:
        return options.cpus_per_trial or 1, 0.0
    gpus = options.gpus_per_trial
    # Apple's GPU does not say how much memory a trial takes, so no two share it.
    if gpus is None and (work.probe_only or device_here().type == "mps"):
        gpus = 1.0
    if gpus is None:
        measure = ray.remote(num_gpus=1, max_calls=1)(measure_here)
        configurations = work.plan.configurations
        with waiting("measuring how much memory of the GPU a trial takes"):
            memory = ray.get(measure.remote(configurations, work.material.by_fold, work.plan.extensions))
        show_too_large([configurations[position] for position in memory.too_large], memory, console)
        gpus = cluster.share_of_gpu(memory.peak, memory.size)
        gpus = max(gpus, joined.gpus / joined.cpus)  # every trial needs a core
    return options.cpus_per_trial or max(1, int(joined.cpus * gpus / joined.gpus) if gpus else 1), gpus


def show_too_large(configurations: list[dict[str, Any]], memory: Memory, console: Console) -> None:
    """Which configurations need more than a whole GPU, unless their batches are split (gradient accumulation)."""
    for config in map(TrialConfig.from_values, configurations):
        what = f"{config.model.backbone} at {View.of(config.view)} with batches of {config.train.batch_size}"
        does = f"does not fit the GPU's {memory.size / 1e9:.1f} GB: its batches are split (gradient accumulation), one trial per GPU"
        console.print(f"{what} {does}", style="yellow", soft_wrap=True)


def shelf(options: Options, material: Material) -> Shelf | None:
    """Where nodes of a cluster get decoded images from; trials of this machine alone have them at hand."""
    if options.address is None:
        return None
    files = [file for views in (material.data.views, *(extra.views for extra in material.data.extra)) for file in views.values()]
    return Shelf(cluster.serve_views(files))


def study_searcher(plan: Plan, slots: cluster.Slots, stock: Stock, stopping: Callable[[], bool], inbox: Inbox) -> Searcher:
    """What the plan names, over the plan's space, with what its probes have shown and what people ask for."""
    metric, kinds = plan.settings.score(), plan.kinds()
    tries = first_tries(plan.space, stock.probes, metric, probes_of(plan.run).guess)
    if len(kinds) > 1:
        # What one would have trained for each, without searching; then what the probes found, for whichever comes next.
        tries = [*plan.baselines().values()][1:] + [{path: value for path, value in one.items() if path != "task"} for one in tries]
    return StudySearcher(
        plan.space,
        plan.fixed,
        sampler=SEARCHERS[plan.settings.searcher].make,
        seed=plan.seed,
        trials=plan.settings.trials,
        slots=slots,
        metric=metric,
        stopping=stopping,
        earlier=(*stock.kept, *stock.going_on),
        resumed=stock.proposals,
        taken=[*(int(item.folder.name) for item in stock.unknown), *(record.number for record in stock.probes)],
        baseline=baseline_of(plan.space),
        tries=tries,
        prior=prior_of(plan.space, stock.probes, metric),
        asked=lambda number: inbox.propose(number, plan.space, plan.fixed),
        kinds=kinds,
        predicts=plan.predicts,
    )


def search(
    plan: Plan,
    job: Job,
    slots: cluster.Slots,
    stock: Stock,
    board: Board,
    soft_stop: SoftStop,
    inbox: Inbox,
    console: Console,
    *,
    trainable: Callable[[dict[str, Any], Job], None] = run_trial,
    searcher: MakeSearcher = study_searcher,
    gain: GainSoFar | None = None,
) -> None:
    """Let Ray Tune train the trials that are proposed, with the live table on a terminal and a line per ended trial elsewhere.

    Args:
        stock: trials of earlier commands.
        inbox: what people ask for meanwhile.
        trainable: what trains a proposal; takes it and the job.
        gain: keeps what the best trial gains over the baseline.
    Raises: KeyboardInterrupt at a second signal; no process of a trial is left then, and the records are closed.
    """
    settings = plan.settings
    live = Live(board, console=console, refresh_per_second=2) if redraws(console) else None

    def show(row: Row) -> None:
        if not live and row.state != "running":
            best = f"best {row.best:.3f}" if row.best is not None else "no score"
            words = f"trial {row.number} {row.state} at epoch {row.epoch}, {best}: {row.differs}"
            console.print(words, soft_wrap=True)

    never = never_stopped(settings.keep_running)
    pruner = Pruner(
        settings.stopper(),
        settings.score(),
        spared=lambda number: never(number) or inbox.spares(number),
        decided=lambda number, decision: driver.decided(number, decision),
        asked=inbox.why_stopped,
        predicts=plan.predicts,
    )
    driver = Driver(
        job.run,
        space=plan.space,
        board=board,
        pruner=pruner,
        soft_stop=soft_stop,
        inbox=inbox,
        retention=Retention(job.run, settings.keep, settings.score()),
        show=show,
        gain=gain,
        predicts=plan.predicts,
    )
    inbox.begin()
    stock = settle(stock, job.run, pruner)
    show_stock(stock, console)
    board.trials += len(stock.probes)
    driver.know(stock.kept, stock.going_on, stock.probes)
    if isinstance(job.run, Path):  # an object store cannot append
        driver.journal = Journal(job.run, plan.space, settings.score(), (*stock.kept, *stock.probes))
    patience = Patience(settings.patience, job, board, soft_stop, [record.number for record in stock.probes])
    if words := SEARCHERS[settings.searcher].words(settings.searcher, plan.space):
        console.print(words, soft_wrap=True)
    left = max(settings.trials - len(stock.kept) - len(stock.unknown), len(stock.proposals))
    if not left:
        return
    # All workers start at once; by default Tune starts the second when the first one is up.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots())
    # Tune keeps a state of its own for a resume that we do not use: the records are the truth.
    with TemporaryDirectory(prefix="sweepvote-") as aside:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, job=job), {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher(plan, slots, stock, lambda: soft_stop.asked, inbox),
                scheduler=pruner,
                num_samples=left,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name=job.run.name,
                storage_path=aside,
                verbose=0,
                # The one that Ray takes in a notebook removes what is shown there, silent or not.
                progress_reporter=tune.CLIReporter(),
                callbacks=[driver, patience],
                stop=soft_stop,
                failure_config=tune.FailureConfig(max_failures=settings.retries),
            ),
        )
        try:
            with live or waiting(board.words):
                tuner.fit()
        except KeyboardInterrupt:
            cluster.stop()
            driver.close_running()
            raise
        finally:
            driver.leave()


def show_stock(stock: Stock, console: Console) -> None:
    """What is done with the trials of earlier commands."""
    going_on = [f"{record.number} (after epoch {len(record.reports)})" for record in stock.going_on if record.result.attempt]
    if not (stock.kept or going_on or stock.damaged or stock.unknown):
        return
    console.print(f"{len(stock.ended)} trials are kept as they ended")
    if going_on:
        console.print(f"{len(going_on)} are resumed: trial {', '.join(going_on)}", soft_wrap=True)
    if stock.misfits:
        numbers = ", ".join(str(record.number) for record in stock.misfits)
        console.print(f"{len(stock.misfits)} stay interrupted, since they are not in the changed space: trial {numbers}", style="yellow")
    for item in stock.unknown:
        console.print(f"kept unchanged, since this version does not have its parts: {item}", style="yellow", soft_wrap=True)
    for item in stock.damaged:
        console.print(f"damaged, quarantined in damaged/ and trained again: {item}", style="yellow", soft_wrap=True)
