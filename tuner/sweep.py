"""A whole search, step by step: read, decode, split, rehearse, search, sum up."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import ray
import torch
from ray import tune
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from search_spaces.read import read_space
from search_spaces.schema import Space, nested
from trainables.config import DataConfig
from trainables.data.labels import contest_scheme, read_task
from trainables.data.photos import DataError, Photos, read_photos
from trainables.data.splits import Split, absent_classes, split_people, write_split
from trainables.data.synthetic import write_people
from trainables.data.views import View, build_views, cache_folder, channel_statistics, count_missing, open_view
from trainables.metrics import bootstrap_f1, interval, person_counts
from trainables.parts import Data
from trainables.record import RUNS, Record, RunCard, RunError, read_predictions, read_records, write_run
from trainables.seeding import generator
from trainables.trial import Job, run_trial
from tuner import cluster, preflight
from tuner.board import Board, Row, clock, differs
from tuner.callbacks import Driver
from tuner.retention import Retention
from tuner.search import OptunaSearcher
from tuner.settings import RunSettings
from tuner.stopping import Asha, Rungs, SoftStop

DEMO_PEOPLE = 300
DEMO_EVAL = 40  # people of the demo whose labels are not given
MOST_BAD = 0.05  # share of undecodable photos above which something is wrong with the data
RETRIES = 2  # of a trial whose worker died; it goes on after its last whole epoch
SUMMED_UP = 10  # rows of the last table


@dataclass(frozen=True)
class Options:
    """The command line."""

    space: str
    data: Path | None = None
    trials: int | None = None
    time_budget: float | None = None  # seconds
    name: str | None = None
    seed: int = 0
    gpus_per_trial: float | None = None
    cpus_per_trial: int | None = None
    address: str | None = None
    changes: tuple[str, ...] = ()
    dashboard: bool = True
    dry_run: bool = False
    allow_bad_photos: bool = False


def sweep(options: Options, console: Console, join: Callable[[], cluster.Cluster] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        join: gives the Ray cluster, where one is being started already.

    Raises: SpaceError, ConfigError, DataError, RunError, ClusterError for what the user can mend; nothing is written to runs/ then.
    """
    start = perf_counter()
    join = join or partial(cluster.start, options.address, dashboard=options.dashboard)
    joined = join() if options.address else None
    has_gpu = joined.gpus > 0 if joined else torch.cuda.is_available()
    space = read_the_space(options, has_gpu)
    settings = RunSettings.model_validate(space.run | ({"trials": options.trials} if options.trials else {}))
    run = name_run(options.name, space.name)
    console.print(f"[bold]{space.name}[/]: {settings.trials} trials of at most {settings.epochs} epochs", highlight=False)
    if space.file and not has_gpu and has_overlay(options.space):
        console.print("No GPU here: the space's [bold]on_cpu[/] part is used (smaller nets, sizes, epochs).")

    sides = DataConfig(**nested(space.fixed).get("data", {}))
    folder = options.data or demo_people(options.seed, console)
    photos = read_photos(folder, sides.cuts)
    photos, views = decode(photos, preflight.views_of(space), options.allow_bad_photos, console)
    split = split_people(photos, sides, options.seed)
    tell_photos(photos, split, console)
    statistics = (
        {view: channel_statistics(open_view(file), photos.rows[split.train]) for view, file in views.items()}
        if "dataset" in preflight.values_of(space).get("normalize", [])
        else {}
    )
    data = Data(photos, split, views, statistics)

    fixed = {"epochs": settings.epochs, "seed": options.seed}
    drawn = preflight.draw(space, fixed, options.seed)
    attributes = preflight.covered_attributes(drawn, photos.scheme)
    chosen = preflight.cover(space, drawn)
    with bar(console, "preflight: one step of each kind of trial", len(chosen)) as advance:
        preflight.rehearse(space, chosen, data, advance)
    if options.dry_run:
        console.print(f"Dry run: {len(drawn)} configurations drawn, {len(chosen)} trained for a step, all sound. Nothing was written.")
        return 0

    run.mkdir(parents=True)
    cluster.log_to(run / "ray.log")
    joined = joined or join()
    cpus, gpus = resources(options, joined, chosen, data)
    slots = max(1, int(min(joined.cpus // cpus, joined.gpus / gpus if gpus else joined.cpus)))
    card = RunCard(
        name=run.name,
        space=space.name,
        data=str(folder.resolve()),
        cuts=sides.cuts,
        seed=options.seed,
        split=split.hash,
        attributes=tuple((attribute.name, attribute.values) for attribute in photos.scheme.attributes),
        epochs=settings.epochs,
        trials=settings.trials,
        command=shlex.join(["python", "-m", "tuner.run", *sys.argv[1:]]),
    )
    write_run(run, card)
    write_split(run / "split.csv", photos, split)
    share = f"{gpus:g} GPU and {cpus} CPU" if gpus else f"{cpus} CPU"
    console.print(f"{slots} trials at a time, {share} each. Records: [bold]{run}[/]. Ray's log: {run}/ray.log", highlight=False)
    if joined.dashboard:
        console.print(f"Ray dashboard: {joined.dashboard} (it asks for a token; print it with: ray get-auth-token)", highlight=False)

    soft_stop = SoftStop(options.time_budget)
    board = Board(settings.trials, settings.epochs, slots, ", ".join(attributes), soft_stop.deadline)
    search(space, settings, fixed, Job(run.resolve(), data, code_version(), cpus), (cpus, gpus), board, soft_stop, options.seed, console)
    summarize(run, space, board, photos, split, perf_counter() - start, soft_stop, console)
    return 130 if soft_stop.reason == "Ctrl-C" else 0


def read_the_space(options: Options, has_gpu: bool) -> Space:
    """The space, changed by `--set`, with everything wrong about it in one SpaceError."""

    def check(space: Space) -> list[tuple[str, str]]:
        # Cuts that are wrong themselves are reported by the check; the names of the attributes do not depend on them.
        return preflight.check_space(space, contest_scheme(DataConfig().cuts))

    return read_space(options.space, on_cpu=not has_gpu, changes=options.changes, check=check)


def name_run(wanted: str | None, space: str) -> Path:
    """A folder below runs/ that is not there yet. Raises: RunError."""
    if wanted is None:
        return next(folder for number in range(1, 10**6) if not (folder := RUNS / f"{Path(space).stem}-{number}").exists())
    if not wanted or Path(wanted).name != wanted or wanted.startswith("."):
        raise RunError(f"--name {wanted!r} is no plain folder name; write letters, digits and dashes")
    if (RUNS / wanted).exists():
        raise RunError(f"there is a run {wanted!r} already ({RUNS / wanted}); choose another --name, or remove that folder")
    return RUNS / wanted


def demo_people(seed: int, console: Console) -> Path:
    """The demo data set, drawn once."""
    folder = cache_folder() / f"demo-{DEMO_PEOPLE}-people-seed-{seed}"
    if not folder.exists():
        console.print(f"No --data: drawing {DEMO_PEOPLE} people once, as a demo data set in {folder}", highlight=False)
        with bar(console, "drawing people", DEMO_PEOPLE + DEMO_EVAL) as advance:
            write_people(folder, people=DEMO_PEOPLE, eval_people=DEMO_EVAL, seed=seed, progress=advance)
    else:
        console.print(f"No --data: using the demo data set of {DEMO_PEOPLE} drawn people in {folder}", highlight=False)
    return folder


def decode(photos: Photos, views: list[View], allow_bad: bool, console: Console) -> tuple[Photos, dict[View, Path]]:
    """The photos that can be decoded, and the view files. Raises: DataError when too many cannot."""
    cache = cache_folder() / "views"
    missing = count_missing(photos, views, cache)
    if missing:
        size = sum(len(photos) * view.height * view.width * 3 for view in views)
        console.print(f"Decoding {len(photos)} photos for {len(views)} view(s), {size / 1e6:,.0f} MB in {cache}", highlight=False)
    with bar(console, "decoding photos", missing) as advance:
        files = build_views(photos, views, cache, advance)
    good = photos.without(files.bad)
    if len(files.bad) > MOST_BAD * len(photos) and not allow_bad:
        mend = "Mend them, or go on without them: --allow-bad-photos"
        raise DataError(f"{good.left_out[-1]}.\nThat is more than {MOST_BAD:.0%} of them. {mend}")
    return good, files.files


def tell_photos(photos: Photos, split: Split, console: Console) -> None:
    """What is used, what is left out, who is on which side."""
    sides = {"train": split.train, "validate": split.valid, "hold out": split.holdout}
    counts = [f"{len(photos.people[rows])} to {side}" for side, rows in sides.items()]
    people = len(set(photos.people.tolist()))
    console.print(f"{len(photos)} photos of {people} people: {', '.join(counts)} (split {split.hash})", highlight=False)
    for item in photos.left_out:
        console.print(f"  left out or noted: {item}", style="yellow", highlight=False, markup=False)
    absent = absent_classes(photos)
    if absent:
        console.print(
            f"  no photo has {len(absent)} of the classes, each counts as F1 0: {'; '.join(absent)}", style="yellow", markup=False
        )


def resources(options: Options, joined: cluster.Cluster, chosen: list[dict[str, Any]], data: Data) -> tuple[int, float]:
    """CPUs and GPUs (or a share of one) for each trial."""
    if not joined.gpus:
        return options.cpus_per_trial or 1, 0.0
    gpus = options.gpus_per_trial
    if gpus is None:
        measure = ray.remote(num_gpus=1, max_calls=1)(preflight.peak_memory)
        gpus = cluster.share_of_gpu(*ray.get(measure.remote(chosen, data)))
        gpus = max(gpus, joined.gpus / joined.cpus)  # every trial needs a core
    return options.cpus_per_trial or max(1, int(joined.cpus * gpus / joined.gpus) if gpus else 1), gpus


def search(
    space: Space,
    settings: RunSettings,
    fixed: dict[str, Any],
    job: Job,
    share: tuple[int, float],
    board: Board,
    soft_stop: SoftStop,
    seed: int,
    console: Console,
) -> None:
    """Let Ray Tune train the trials that Optuna proposes, with the live table on a terminal and a line per ended trial elsewhere."""
    asha = Asha(Rungs(grace=settings.grace, reduction=settings.reduction, epochs=settings.epochs))
    live = Live(board, console=console, refresh_per_second=2) if console.is_terminal else None

    def show(row: Row) -> None:
        if not live and row.state != "running":
            best = f"best {row.best:.4f}" if row.best is not None else "no score"
            console.print(f"trial {row.number} {row.state} at epoch {row.epoch}, {best}: {row.differs}", highlight=False, markup=False)

    driver = Driver(
        job.run,
        space=space,
        board=board,
        asha=asha,
        soft_stop=soft_stop,
        retention=Retention(job.run, settings.keep),
        photos=len(job.data.split.train),
        show=show,
    )
    cpus, gpus = share
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, job=job), {"cpu": cpus, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearcher(space, fixed, seed=seed, trials=settings.trials),
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


def summarize(
    run: Path, space: Space, board: Board, photos: Photos, split: Split, seconds: float, soft_stop: SoftStop, console: Console
) -> None:
    """The last table, what it cost, where it lies, and what to do next."""
    records = read_records(run)
    scored = sorted((record for record in records if record.best), key=lambda record: (-record.best["macro_f1"], record.number))
    table = Table(title=f"Best trials of {run.name}, by macro F1 ({board.attributes}) on validation", title_justify="left", box=None)
    for column in ("trial", "state", "best epoch", "macro F1", "95 % interval", "accuracy"):
        table.add_column(column, justify="left" if column == "state" else "right")
    table.add_column("what differs", overflow="fold")
    for record in scored[:SUMMED_UP]:
        best = record.best
        low, high = validation_interval(record, photos, split)
        row = [f"{best['epoch']} of {len(record.reports)}", f"{best['macro_f1']:.4f}", f"{low:.3f} - {high:.3f}", f"{best['accuracy']:.4f}"]
        table.add_row(str(record.number), record.result.state, *row, differs(space, record.config.values()))
    console.print()
    console.print(table)
    states = [record.result.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "stopped", "interrupted", "failed") if state in states)
    console.print(f"{len(records)} trials: {counts or 'none'}", highlight=False)
    for record in records:
        if record.result.state == "failed":
            console.print(f"  trial {record.number} failed: {record.result.reason}", style="red", highlight=False, markup=False)
    pace = f"{board.photos:,} photos trained in {clock(seconds)}, {board.photos / seconds:,.0f} a second over the whole command"
    console.print(f"{pace}. Size of {run}: {folder_size(run) / 1e6:,.0f} MB", highlight=False)
    if soft_stop.reason:
        console.print(f"Ended early by {soft_stop.reason}; every epoch that was reported is kept.")
    if scored:
        top = min(3, len(scored))
        vote = f"python -m analysis.ensemble --top {top} --run {run.name}"
        console.print(f"Next: [bold]{vote}[/]   or: tensorboard --logdir {run}/trials", highlight=False)


def validation_interval(record: Record, photos: Photos, split: Split) -> tuple[float, float]:
    """The person-bootstrap 95 % interval of a trial's best validation score."""
    predictions = read_predictions(record.folder)
    task = read_task(record.config.task, photos.scheme)
    labels = photos.labels[split.valid][:, photos.scheme.columns(task.scheme.names)]
    truth, predicted = task.scheme.joint(labels), task.joint_probabilities(predictions.heads).argmax(axis=1)
    counts = person_counts(truth, predicted, photos.people[split.valid], task.scheme.classes)
    return interval(bootstrap_f1(counts, generator(record.config.seed, "bootstrap")))


def has_overlay(space: str) -> bool:
    """Whether a space has an `on_cpu:` part."""
    return read_space(space, on_cpu=True) != read_space(space)


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def code_version() -> str:
    """The commit of this project where it is a checkout, with `-dirty` when files differ from it; else its version."""
    root = Path(__file__).parent.parent
    described = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() if described.returncode == 0 else version("sweepvote")


@contextmanager
def bar(console: Console, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar for `total` things; yields what to call with each number done. Nothing is shown when there is nothing to do."""
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not total, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.advance(task, done)
