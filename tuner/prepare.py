"""Everything before the search: the space, the photos, the sides, the preflight. No record is written here."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from search_spaces.read import read_space
from search_spaces.schema import Space, nested
from trainables.data.extra import Completed, complete
from trainables.data.groups import merge_tied, tie_copies
from trainables.data.labels import Scheme
from trainables.data.layouts.reading import find_layout, read_photos, refuse_odd_names
from trainables.data.photos import DataError, Photos
from trainables.data.settings import DataConfig, LabelsConfig
from trainables.data.splits import Split, absent_classes, split_people
from trainables.data.training import Data
from trainables.data.view_store import cache_folder, view_cache
from trainables.data.views import View, ViewFiles, build_views, count_missing
from trainables.progress import progress_bar
from trainables.record import SPACE, RunError
from trainables.restore_data import prove_extra, restore_split
from trainables.storage import Folder, local_file, open_folder, reach
from tuner import preflight, rehearsal
from tuner.demo import writing
from tuner.lock import LOCK
from tuner.options import Options
from tuner.resume import Earlier, refuse, refuse_changes, with_cuts
from tuner.settings import RunSettings

DEMO_PEOPLE = 300
DEMO_EVAL = 40  # people of the demo whose labels are not given
MOST_BAD = 0.05  # share of undecodable photos above which something is wrong with the data
MOST_FACELESS = 0.5  # share of photos without a face above which a crop around faces is no good idea


@dataclass(frozen=True)
class Plan:
    """A search that can begin, or go on."""

    run: Folder  # to be made, or of the earlier run
    space: Space
    settings: RunSettings
    folder: Path  # of the photos, or their table
    sides: DataConfig
    data: Data
    digests: dict[str, str]  # of every photo's content
    extra: bytes  # the table of what trains beside the photos; empty where nothing does
    fixed: dict[str, Any]  # values that the run adds to every configuration
    seed: int
    attributes: tuple[str, ...]  # what all trials predict
    drawn: int  # configurations that the preflight drew
    rehearsed: list[dict[str, Any]]  # those that it trained for a step


def prepare(options: Options, earlier: Earlier | None, *, has_gpu: bool, console: Console) -> Plan:
    """Read, decode, split and rehearse. Raises: SpaceError, ConfigError, DataError, RunError for what the user can mend."""
    refuse_options(options, earlier)
    space = read_the_space(options, earlier, has_gpu)
    settings = settings_of(options, space, earlier)
    if earlier:
        refuse_changes(earlier.card, earlier.space, space, options.seed)
        run, seed = earlier.run, earlier.card.seed
    else:
        run, seed = name_run(options.name, space.name, open_folder(options.storage)), options.seed or 0
    verb = f"going on with {run.name}, " if earlier else ""
    plan = f": {verb}{settings.trials} trials of at most {settings.epochs} epochs"
    console.print(Text.assemble((space.name, "bold"), plan))
    if options.space and not has_gpu and has_overlay(options.space):
        console.print("No GPU here: the space's on_cpu part is used (smaller nets, sizes, epochs).")

    sides = DataConfig(**nested(space.fixed).get("data", {}))
    folder = data_folder(options, earlier, console)
    photos = read_photos(folder, sides)
    if earlier is None:
        refuse_odd_names(folder, photos)
    views_wanted, values = preflight.views_of(space), preflight.values_of(space)

    def decoded(photos: Photos) -> tuple[Photos, ViewFiles]:
        # What a run went on without, it goes on without: that these are the same photos is proven below.
        return decode(photos, views_wanted, options.allow_bad_photos or earlier is not None, console)

    photos, views = decoded(photos)
    if earlier:
        photos, split = restore_split(earlier.run, earlier.card, photos, views.digests, sides.fold)
    else:
        photos = tie_copies(photos, views.digests)
        split = split_people(photos, sides, seed)
        photos = merge_tied(photos)
    tell_photos(photos, split, console)
    data = Data.of(photos, split, views, with_statistics="dataset" in values.get("normalize", []))
    whole = complete(data, folder, sides, values.get("task", ["joint"]), values.get("labels/relabel", []), views.digests, decoded)
    if earlier:
        prove_extra(earlier.run, whole.table)
    tell_extra(whole, values.get("labels/confidence", [LabelsConfig().confidence]), console)
    data = whole.data

    fixed = {"epochs": settings.epochs, "metric": settings.metric, "seed": seed}
    drawn = preflight.draw(space, fixed, seed)
    attributes = preflight.covered_attributes(drawn, photos.scheme)
    if earlier and earlier.card.predicts != attributes:
        was, now = (", ".join(names) for names in (earlier.card.predicts, attributes))
        refuse(earlier.card, [f"task: its trials predict {was}, new ones would predict {now}: the scores cannot be compared"])
    rehearsed = preflight.cover(space, drawn)
    with progress_bar("preflight: one step of each kind of trial", len(rehearsed)) as advance:
        rehearsal.rehearse(space, rehearsed, data, advance)
    return Plan(run, space, settings, folder, sides, data, views.digests, whole.table, fixed, seed, attributes, len(drawn), rehearsed)


def refuse_options(options: Options, earlier: Earlier | None) -> None:
    """Raises: RunError for options that do not go together."""
    if earlier is None:
        if options.space is None:
            raise RunError("give --space a YAML file or a shipped space, or --resume a run to go on with")
        if options.trials and options.trials.more:
            raise RunError(f"--trials +{options.trials.number} adds to a run; give --resume, or leave the + out")
    elif options.name:
        raise RunError("--name is of a new run; one that goes on keeps its name. Leave it out")
    elif options.space is None and earlier.space is None:
        raise RunError(f"{earlier.run}/{SPACE} is gone; give --space the space to go on with")


def read_the_space(options: Options, earlier: Earlier | None, has_gpu: bool) -> Space:
    """The space, changed by `--set`, with everything wrong about it in one SpaceError.

    A run that goes on has its own, with all that was laid over it when it began, unless `--space` gives another.
    """

    def check(space: Space) -> list[tuple[str, str]]:
        sides = preflight.sound_sides(with_cuts(space, earlier.card) if earlier else space)
        return preflight.check_space(space, *known_labels(options, earlier, sides))

    if options.space:
        space = read_space(options.space, on_cpu=not has_gpu, changes=options.changes, check=check)
        return with_cuts(space, earlier.card) if earlier else space
    with local_file(earlier.run / SPACE) as file:
        space = read_space(file, changes=options.changes, check=check)
    return with_cuts(replace(space, name=earlier.card.space), earlier.card)


def known_labels(options: Options, earlier: Earlier | None, sides: DataConfig) -> tuple[Scheme, Collection[str]]:
    """The labels that the space is about, and the lists of their corrections that come with the data.

    Raises: DataError where there are no images.
    """
    if options.data:
        layout = find_layout(options.data)
        return layout.scheme(options.data, sides), layout.corrections
    folder = Path(earlier.card.data) if earlier else demo_folder()
    # The demo is known before it is drawn.
    layout = find_layout(folder) if folder.exists() else writing.LAYOUT
    return earlier.card.scheme if earlier else layout.scheme(folder, sides), layout.corrections


def settings_of(options: Options, space: Space, earlier: Earlier | None) -> RunSettings:
    """The section `run` of the space with what the command line says instead. A run that goes on keeps its number of trials."""
    values = dict(space.run)
    if earlier:
        values["trials"] = earlier.card.trials
    if options.trials:
        values["trials"] = options.trials.number + (values["trials"] if options.trials.more else 0)
    for name in ("early_stopping", "keep_running", "keep", "retries"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    return RunSettings.model_validate(values)


def data_folder(options: Options, earlier: Earlier | None, console: Console) -> Path:
    """Where the photos lie. Raises: RunError when those of the earlier run are gone."""
    if options.data:
        return options.data
    if earlier is None or Path(earlier.card.data) == demo_folder().resolve():
        return demo_people(console)
    if not Path(earlier.card.data).exists():
        raise RunError(f"the photos of {earlier.card.name} were in {earlier.card.data}, which is gone; give --data where they are now")
    return Path(earlier.card.data)


def has_overlay(space: str) -> bool:
    """Whether a space has an `on_cpu:` part."""
    return read_space(space, on_cpu=True) != read_space(space)


def name_run(wanted: str | None, space: str, runs: Folder) -> Folder:
    """A folder below `runs`, which can be written to, that is not there yet. Raises: RunError, StorageError."""
    if wanted is not None and (not wanted or Path(wanted).name != wanted or wanted.startswith(".")):
        raise RunError(f"--name {wanted!r} is no plain folder name; write letters, digits and dashes")
    reach(runs)
    if wanted is None:
        return next(folder for number in range(1, 10**6) if not (folder := runs / f"{Path(space).stem}-{number}").exists())
    if (runs / wanted).exists():
        refuse_taken(runs / wanted)
    return runs / wanted


def refuse_taken(run: Folder) -> None:
    """Raises: RunError for a folder that is there already; one whose command died before it was a run may be used."""
    if not (run / LOCK).is_file() or any((run / name).exists() for name in ("run.json", "trials")):
        raise RunError(f"there is a run {run.name!r} already ({run}); choose another --name, go on with it: --resume, or remove it")


def demo_folder() -> Path:
    return cache_folder() / f"demo-{DEMO_PEOPLE}-people"


def demo_people(console: Console) -> Path:
    """The demo data set, drawn once."""
    folder = demo_folder()
    if not folder.exists():
        console.print(f"No --data: drawing {DEMO_PEOPLE} people once, as a demo data set in {folder}", highlight=False)
        with progress_bar("drawing people", DEMO_PEOPLE + DEMO_EVAL) as advance:
            writing.write_people(folder, people=DEMO_PEOPLE, eval_people=DEMO_EVAL, seed=0, progress=advance)
    else:
        console.print(f"No --data: using the demo data set of {DEMO_PEOPLE} drawn people in {folder}", highlight=False)
    return folder


def decode(photos: Photos, views: list[View], allow_bad: bool, console: Console) -> tuple[Photos, ViewFiles]:
    """The photos that can be decoded, and the view files. Raises: DataError when too many cannot."""
    cache = view_cache()
    missing = count_missing(photos, views, cache)
    if missing:
        size = sum(missing * view.height * view.width * 3 for view in views)
        console.print(f"Decoding {missing} photos for {len(views)} view(s), {size / 1e6:,.0f} MB in {cache}", highlight=False)
    words = "decoding photos, finding faces" if any(view.wants_face for view in views) else "decoding photos"
    with progress_bar(words, missing) as advance:
        files = build_views(photos, views, cache, advance)
    good = photos.without(files.bad)
    if len(files.bad) > MOST_BAD * len(photos) and not allow_bad:
        mend = "Mend them, or go on without them: --allow-bad-photos"
        raise DataError(f"{good.left_out[-1]}.\nThat is more than {MOST_BAD:.0%} of them. {mend}")
    if files.faceless:
        console.print(files.faceless_words(len(good)), style="yellow", highlight=False, markup=False)
        if len(files.faceless) > MOST_FACELESS * len(good):
            unfit = "That is more than half of them: view/crop: face does not suit these photos; center, box or none do not look for faces."
            console.print(unfit, style="bold red", highlight=False, markup=False)
    return good, files


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


def tell_extra(whole: Completed, confidences: Iterable[float], console: Console) -> None:
    """How many photos train beside the run's own, and what of them and of the corrections was left out.

    Args:
        confidences: smallest probabilities at which a photo with soft labels trains.
    """
    for one in whole.found:
        soft = one.extra.soft
        words = "labelled"
        if soft is not None:
            kept = [f"{int((soft.max(axis=1) >= least).sum())} of them at labels/confidence {least:g}" for least in confidences]
            words = f"pseudo-labelled: {', '.join(kept)}"
        console.print(f"{len(one.extra.photos)} further photos train, from {one.source}, {words}", highlight=False, markup=False)
    for item in whole.left_out:
        console.print(f"  left out or noted: {item}", style="yellow", highlight=False, markup=False)
