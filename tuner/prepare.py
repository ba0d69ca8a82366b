"""Everything before the search: the space, the photos, the sides, the preflight. Nothing is written to runs/ here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces.read import read_space
from search_spaces.schema import Space, nested
from trainables.config import DataConfig
from trainables.data.labels import contest_scheme
from trainables.data.photos import DataError, Photos, read_photos
from trainables.data.splits import Split, absent_classes, split_people
from trainables.data.synthetic import write_people
from trainables.data.views import View, build_views, cache_folder, channel_statistics, count_missing, open_view, view_cache
from trainables.parts import Data
from trainables.progress import progress_bar
from trainables.record import RUNS, RunError
from tuner import preflight
from tuner.settings import RunSettings

DEMO_PEOPLE = 300
DEMO_EVAL = 40  # people of the demo whose labels are not given
MOST_BAD = 0.05  # share of undecodable photos above which something is wrong with the data


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


@dataclass(frozen=True)
class Plan:
    """A search that can begin."""

    run: Path  # folder to be made
    space: Space
    settings: RunSettings
    folder: Path  # of the photos
    sides: DataConfig
    data: Data
    fixed: dict[str, Any]  # values that the run adds to every configuration
    attributes: tuple[str, ...]  # what all trials predict
    drawn: int  # configurations that the preflight drew
    rehearsed: list[dict[str, Any]]  # those that it trained for a step


def prepare(options: Options, *, has_gpu: bool, console: Console) -> Plan:
    """Read, decode, split and rehearse. Raises: SpaceError, ConfigError, DataError, RunError for what the user can mend."""
    space = read_the_space(options, has_gpu)
    settings = RunSettings.model_validate(space.run | ({"trials": options.trials} if options.trials else {}))
    run = name_run(options.name, space.name)
    console.print(f"[bold]{space.name}[/]: {settings.trials} trials of at most {settings.epochs} epochs", highlight=False)
    if not has_gpu and has_overlay(options.space):
        console.print("No GPU here: the space's [bold]on_cpu[/] part is used (smaller nets, sizes, epochs).")

    sides = DataConfig(**nested(space.fixed).get("data", {}))
    folder = options.data or demo_people(console)
    photos = read_photos(folder, sides.cuts)
    photos, views = decode(photos, preflight.views_of(space), options.allow_bad_photos, console)
    split = split_people(photos, sides, options.seed)
    tell_photos(photos, split, console)
    by_data = "dataset" in preflight.values_of(space).get("normalize", [])
    statistics = {view: channel_statistics(open_view(file), photos.rows[split.train]) for view, file in views.items()} if by_data else {}
    data = Data(photos, split, views, statistics)

    fixed = {"epochs": settings.epochs, "seed": options.seed}
    drawn = preflight.draw(space, fixed, options.seed)
    attributes = preflight.covered_attributes(drawn, photos.scheme)
    rehearsed = preflight.cover(space, drawn)
    with progress_bar("preflight: one step of each kind of trial", len(rehearsed)) as advance:
        preflight.rehearse(space, rehearsed, data, advance)
    return Plan(run, space, settings, folder, sides, data, fixed, attributes, len(drawn), rehearsed)


def read_the_space(options: Options, has_gpu: bool) -> Space:
    """The space, changed by `--set`, with everything wrong about it in one SpaceError."""

    def check(space: Space) -> list[tuple[str, str]]:
        # Cuts that are wrong themselves are reported by the check; the names of the attributes do not depend on them.
        return preflight.check_space(space, contest_scheme(DataConfig().cuts))

    return read_space(options.space, on_cpu=not has_gpu, changes=options.changes, check=check)


def has_overlay(space: str) -> bool:
    """Whether a space has an `on_cpu:` part."""
    return read_space(space, on_cpu=True) != read_space(space)


def name_run(wanted: str | None, space: str) -> Path:
    """A folder below runs/ that is not there yet. Raises: RunError."""
    if wanted is None:
        return next(folder for number in range(1, 10**6) if not (folder := RUNS / f"{Path(space).stem}-{number}").exists())
    if not wanted or Path(wanted).name != wanted or wanted.startswith("."):
        raise RunError(f"--name {wanted!r} is no plain folder name; write letters, digits and dashes")
    if (RUNS / wanted).exists():
        raise RunError(f"there is a run {wanted!r} already ({RUNS / wanted}); choose another --name, or remove that folder")
    return RUNS / wanted


def demo_people(console: Console) -> Path:
    """The demo data set, drawn once."""
    folder = cache_folder() / f"demo-{DEMO_PEOPLE}-people"
    if not folder.exists():
        console.print(f"No --data: drawing {DEMO_PEOPLE} people once, as a demo data set in {folder}", highlight=False)
        with progress_bar("drawing people", DEMO_PEOPLE + DEMO_EVAL) as advance:
            write_people(folder, people=DEMO_PEOPLE, eval_people=DEMO_EVAL, seed=0, progress=advance)
    else:
        console.print(f"No --data: using the demo data set of {DEMO_PEOPLE} drawn people in {folder}", highlight=False)
    return folder


def decode(photos: Photos, views: list[View], allow_bad: bool, console: Console) -> tuple[Photos, dict[View, Path]]:
    """The photos that can be decoded, and the view files. Raises: DataError when too many cannot."""
    cache = view_cache()
    missing = count_missing(photos, views, cache)
    if missing:
        size = sum(len(photos) * view.height * view.width * 3 for view in views)
        console.print(f"Decoding {len(photos)} photos for {len(views)} view(s), {size / 1e6:,.0f} MB in {cache}", highlight=False)
    with progress_bar("decoding photos", missing) as advance:
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
