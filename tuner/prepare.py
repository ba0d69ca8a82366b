"""From a space, or from chosen configurations, to decoded and split images whose trials have been rehearsed."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from search_spaces.read import find_extensions, read_space
from search_spaces.schema import Space, nested
from trainables.baseline import baseline_of
from trainables.config import TrialConfig, choosers
from trainables.data.extra import Completed, complete
from trainables.data.groups import merge_tied, tie_copies
from trainables.data.images import DataError, Images, LeftOut
from trainables.data.layouts.reading import find_layout, read_images, read_unlabelled, refuse_odd_names
from trainables.data.names import some
from trainables.data.settings import DataConfig, LabelsConfig
from trainables.data.splits import Split, absent_classes, rare_classes, shared_by_parts, split_groups
from trainables.data.targets import Scheme, read_task
from trainables.data.teacher import Teacher
from trainables.data.training import Data
from trainables.data.view_store import cache_folder, view_cache
from trainables.data.views import View, ViewFiles, build_views, count_missing
from trainables.extensions import Extension, ExtensionError, code_is_trusted, hashes, is_copy, load, trust, trusted, unread_words
from trainables.mirror import local_folder
from trainables.progress import progress_bar
from trainables.record import SPACE, RunCard, RunError
from trainables.restore_data import read_teacher, restore_split, verify_extra
from trainables.storage import Folder, local_file
from tuner import preflight
from tuner.cli import Options
from tuner.demo import writing
from tuner.runs import Earlier, explicit, refuse, with_data_of
from tuner.settings import RunSettings, read_settings
from tuner.understood import show_understood

DEMO_PEOPLE = 300
DEMO_EVAL = 40  # people of the demo whose labels are not given
NOTHING_GIVEN = "give --space (a YAML file or a shipped space), or --resume (a run's name or folder)"
TASK = TrialConfig.model_fields["task"].default
MOST_BAD = 0.05  # share of undecodable images above which something is wrong with the data
MOST_WITHOUT_FACE = 0.5  # share of images with no detected face above which a crop around faces does not suit them


@dataclass(frozen=True)
class Plan:
    """What a command is going to train: all that is known, and checked, before an image is opened."""

    run: Folder  # new, or one that is resumed
    space: Space
    settings: RunSettings
    seed: int
    fixed: dict[str, Any]  # values that the run adds to every configuration
    targets: tuple[str, ...]  # what trials predict, together
    configurations: list[dict[str, Any]]  # that show all that can vary
    views: list[View]
    folder: Path  # of the images, or their table
    images: Images  # as they were read; not decoded yet
    split_of: Earlier | None  # the run whose split is kept; None: they are split here
    extensions: tuple[Extension, ...] = ()  # which this process has executed
    teacher: Teacher | None = None  # whose answers the trials learn

    @property
    def data_settings(self) -> DataConfig:
        return data_settings_of(self.space)

    def predicts(self, values: Mapping[str, Any]) -> str:
        """What a trial of these settings predicts, in words: scores of trials that predict other targets are not comparable."""
        return ", ".join(read_task(values.get("task", TASK), self.images.scheme).scheme.names)

    def kinds(self) -> dict[str, list[Any]]:
        """The tasks that the space can draw by what they predict."""
        found: dict[str, list[Any]] = {}
        for task in preflight.tasks_of(self.space):
            found.setdefault(self.predicts({"task": task}), []).append(task)
        return found

    def baselines(self) -> dict[str, dict[str, Any]]:
        """What makes a trial the baseline (see `baseline_of`) by what trials can predict: the first is that of the search."""
        begin, kinds = baseline_of(self.space), self.kinds()
        own = self.predicts(begin) if "task" in begin or len(kinds) == 1 else next(iter(kinds))
        others = {kind: begin | {"task": tasks[0]} for kind, tasks in kinds.items() if kind != own}
        return {own: begin} | others if begin else {}

    @property
    def over(self) -> str:
        """What scores are over, in words."""
        kinds = self.kinds()
        return ", ".join(self.targets) if len(kinds) == 1 else f"{'; '.join(kinds)}: each by itself"


@dataclass(frozen=True)
class Material:
    """The decoded images as trials need them."""

    by_fold: dict[int, Data]  # by the fold that validates
    digests: dict[str, str]  # of every image's content
    extra: bytes  # the table of what trains beside the images; empty where nothing does

    @property
    def data(self) -> Data:
        """With the fold that validates first, or alone."""
        return next(iter(self.by_fold.values()))


def plan_search(run: Folder, space: Space, settings: RunSettings, options: Options, earlier: Earlier | None, console: Console) -> Plan:
    """A search over a space that has been checked. Raises: SpaceError, DataError, RunError for what the user can fix."""
    seed = earlier.card.seed if earlier else options.seed or 0
    fixed = {"epochs": settings.epochs, "metric": settings.metric, "seed": seed}
    drawn = preflight.draw(space, fixed, seed)
    folder = data_folder(options, earlier, console)
    images = read_images(folder, data_settings_of(space))
    targets = preflight.covered_targets(preflight.tasks_of(space), images.scheme)
    settings = settings.for_targets(images.scheme.part(targets))
    fixed["metric"] = settings.metric
    drawn = [values | {"metric": settings.metric} for values in drawn]
    if earlier is None:
        refuse_odd_names(folder, images)
        show_understood(images, read_unlabelled(folder, data_settings_of(space)), console)
        # Too few groups are reported before anything is decoded; decoding can only leave out more.
        split_groups(images, data_settings_of(space), seed)
    if earlier and earlier.card.predicts != targets:
        was, now = (", ".join(names) for names in (earlier.card.predicts, targets))
        refuse(earlier.card, [f"task: its trials predict {was}, new ones would predict {now}, and such scores cannot be compared"])
    views = preflight.views_of(space)
    return Plan(
        run,
        space if earlier else explicit(space),
        settings,
        seed,
        fixed,
        targets,
        preflight.cover(space, drawn),
        views,
        folder,
        images,
        earlier,
        teacher=read_teacher(earlier.run, earlier.card) if earlier else None,
    )


def prepare(plan: Plan, *, allow_bad: bool, console: Console) -> Material:
    """Decode, split and rehearse; no record is written.

    Args:
        allow_bad: whether images that cannot be decoded may be left out however many they are.
    Raises: SpaceError, ConfigError, DataError, RunError for what the user can fix.
    """
    values, data_settings = preflight.values_of(plan.space), plan.data_settings

    def decoded(images: Images) -> tuple[Images, ViewFiles]:
        return decode(images, plan.views, allow_bad, console)

    images, views = decoded(plan.images)
    images, split = divide(images, views.digests, data_settings, plan.seed, plan.split_of)
    show_images(images, split, () if plan.split_of else plan.images.left_out, console)
    by_data = "dataset" in values.get("normalize", [])
    tasks, relabels = preflight.tasks_of(plan.space), values.get("labels/relabel", [])
    completed: dict[int, Completed] = {}
    for fold in values.get("data/fold", [data_settings.fold]):
        data = Data.of(images, replace(split, fold=fold), views, with_statistics=by_data)
        # For each fold again: which extra images may train depends on the groups that validate.
        completed[fold] = complete(data, plan.folder, data_settings, tasks, relabels, views.digests, decoded, plan.teacher)
        if plan.split_of:
            verify_extra(plan.split_of.run, completed[fold].table)
    by_fold = {fold: one.data for fold, one in completed.items()}
    *_, whole = completed.values()
    show_extra(whole, values.get("labels/confidence", [LabelsConfig().confidence]), console)

    # torch and timm take seconds, and every mistake up to here is reported without them.
    with progress_bar("preflight: one step of each kind of trial", len(plan.configurations)) as advance:
        from tuner.rehearsal import rehearse

        rehearse(plan.space, plan.configurations, by_fold, advance)
    return Material(by_fold, views.digests, whole.table)


def divide(
    images: Images, digests: Mapping[str, str], data_settings: DataConfig, seed: int, earlier: Earlier | None
) -> tuple[Images, Split]:
    """The split into train, validation and hold-out: that of the earlier run where there is one.

    Args:
        digests: of every image's content.
    Raises: RunError where the images are not those of the earlier run, DataError where they cannot be split.
    """
    if earlier:
        return restore_split(earlier.run, earlier.card, images, digests, data_settings.fold)
    tied = tie_copies(images, digests)
    split = split_groups(tied, data_settings, seed)
    return merge_tied(replace(tied, left_out=(*tied.left_out, *shared_by_parts(tied)))), split


def data_settings_of(space: Space) -> DataConfig:
    """The section `data` of a space."""
    return DataConfig(**nested(space.fixed).get("data", {}))


def refuse_options(options: Options) -> None:
    """Raises: RunError for options that do not go together."""
    if not options.resume:
        if options.space is None:
            raise RunError(NOTHING_GIVEN)
        if options.trials and options.trials.more:
            raise RunError(f"--trials +{options.trials.number} adds to an earlier run; give --resume, or write {options.trials.number}")
    elif options.name:
        raise RunError(f"--name {options.name} is for a new run, and a resumed run keeps its name; remove --name")


def load_extensions(options: Options, earlier: Earlier | None) -> tuple[Extension, ...]:
    """The extensions of a search, executed in this process: the space may name what they add.

    A resumed run keeps its own. An edited space may add files, and it may name a file of the run without having it beside it.
    Raises: SpaceError, ExtensionError, and RunError where a file is another one than the run began with.
    """
    own = earlier.extensions if earlier else ()
    if not options.space:
        return own
    known = hashes(own)
    files = find_extensions(options.space, there=known)
    given = [Extension(file.name, file.read_bytes()) for file in files]
    if earlier:
        changed = [(file, one) for file, one in zip(files, given, strict=True) if known.get(one.name, one.sha256) != one.sha256]
        why = "trials by both cannot be distinguished; to keep the run's own, remove the file or leave out --space"
        mistakes = [f"extensions: {file} ({one.sha256}) is not {one.name} of the run ({known[one.name]}): {why}" for file, one in changed]
        refuse(earlier.card, mistakes)
    # The space of somebody else's run opens no more than the run does.
    strange = [(file, one) for file, one in zip(files, given, strict=True) if one.sha256 not in trusted() and is_copy(file)]
    if strange and not code_is_trusted():
        raise ExtensionError(unread_words(strange[0][0].parent.parent, strange))
    load(given)
    trust(given)
    return (*own, *(one for one in given if one.name not in known))


def read_the_space(options: Options, earlier: Earlier | None, has_gpu: bool) -> Space:
    """The space, changed by `--set`, with everything wrong about it in one SpaceError.

    A resumed run has its own, with all changes that were made to it when it began, unless `--space` gives another.
    """

    def check(space: Space) -> list[tuple[str, str]]:
        data_settings = preflight.valid_splits(with_data_of(space, earlier) if earlier else space)
        return preflight.check_space(space, *known_labels(options, earlier, data_settings))

    if options.space:
        space = read_space(options.space, on_cpu=not has_gpu, changes=options.changes, choosers=choosers(), check=check)
        return with_data_of(space, earlier) if earlier else space
    if earlier is None:
        raise RunError(NOTHING_GIVEN)
    if earlier.space is None:
        raise RunError(f"{earlier.run}/{SPACE} is missing; give the space to resume with: --space FILE")
    with local_file(earlier.run / SPACE) as file:
        space = read_space(file, changes=options.changes, choosers=choosers(), check=check)
    return with_data_of(replace(space, name=earlier.card.space), earlier)


def known_labels(options: Options, earlier: Earlier | None, data_settings: DataConfig) -> tuple[Scheme, Collection[str]]:
    """The labels that the space is about, and the lists of their corrections that come with the data.

    Raises: DataError where there are no images.
    """
    if options.data:
        folder = local_folder(options.data)
        layout = find_layout(folder, data_settings)
        return layout.scheme(folder, data_settings), layout.corrections
    folder = local_folder(earlier.card.data) if earlier else demo_folder()
    # The demo is known before it is drawn.
    layout = find_layout(folder, data_settings) if folder.exists() else writing.LAYOUT
    return earlier.card.scheme if earlier else layout.scheme(folder, data_settings), layout.corrections


def settings_of(options: Options, space: Space, earlier: Earlier | None) -> RunSettings:
    """The section `run` of the space with what the command line says instead. A resumed run keeps its number of trials.

    Raises: ConfigError for what the command line, or a call from Python, says.
    """
    values = dict(space.run)
    if earlier:
        values["trials"] = earlier.card.trials
        if not (earlier.space and "finalists" in earlier.space.run):
            values.setdefault("finalists", 0)
        # A run of a version that knew no probes goes on without.
        values["probe"] = bool(earlier.space and earlier.space.run.get("probe", False)) and values.get("probe", True)
    if options.trials:
        values["trials"] = options.trials.number + (values["trials"] if options.trials.more else 0)
    if options.early_stopping is not None:
        # The pruner of the space, where it has one, comes back; none where it has none.
        kept = {"pruner": values["pruner"]} if options.early_stopping and values.get("pruner", "none") != "none" else {}
        values = {name: value for name, value in values.items() if name != "pruner"} | kept
    for name in ("early_stopping", "keep_running", "keep", "retries", "finalists", "answer"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    return read_settings(values)


def with_shares_of(card: RunCard, options: Options) -> Options:
    """The options with what each trial of the earlier run was given, where they do not say otherwise."""
    names = [name for name in ("cpus_per_trial", "gpus_per_trial") if getattr(options, name) is None]
    return replace(options, **{name: getattr(card, name) for name in names})


def data_folder(options: Options, earlier: Earlier | None, console: Console) -> Path:
    """Where the images are. Raises: RunError when those of the earlier run are not there any more."""
    if options.data:
        return local_folder(options.data)
    if earlier is None or Path(earlier.card.data) == demo_folder().resolve():
        return demo_people(console)
    folder = local_folder(earlier.card.data)
    if not folder.exists():
        raise RunError(f"the images of {earlier.card.name} were in {earlier.card.data}, which is gone; give --data their new path")
    return folder


def has_overlay(space: str | Mapping[str, Any]) -> bool:
    """Whether a space has an `on_cpu:` part."""
    return read_space(space, on_cpu=True) != read_space(space)


def demo_folder() -> Path:
    # The number says how they are drawn: earlier runs keep the images that they were made from.
    return cache_folder() / f"demo-{DEMO_PEOPLE}-people-2"


def demo_people(console: Console) -> Path:
    """The demo data set, drawn once."""
    folder = demo_folder()
    if not folder.exists():
        console.print(f"No --data: drawing {DEMO_PEOPLE} people once, as a demo data set in {folder}")
        with progress_bar("drawing people", DEMO_PEOPLE + DEMO_EVAL) as advance:
            writing.write_people(folder, people=DEMO_PEOPLE, eval_people=DEMO_EVAL, seed=0, progress=advance)
    else:
        console.print(f"No --data: using the demo data set of {DEMO_PEOPLE} drawn people in {folder}")
    return folder


def decode(images: Images, views: list[View], allow_bad: bool, console: Console) -> tuple[Images, ViewFiles]:
    """The images that can be decoded, and their view files. Raises: DataError when too many cannot."""
    cache = view_cache()
    missing = count_missing(images, views, cache)
    if missing:
        size = sum(missing * view.height * view.width * 3 for view in views)
        console.print(f"Decoding {missing} images for {len(views)} view(s), {size / 1e6:,.0f} MB in {cache}")
    words = "decoding images, finding faces" if any(view.needs_face for view in views) else "decoding images"
    with progress_bar(words, missing) as advance:
        files = build_views(images, views, cache, advance)
    good = images.without(files.bad)
    if len(files.bad) > MOST_BAD * len(images) and not allow_bad:
        fix = "Fix them, or leave them out with --allow-bad-images"
        raise DataError(f"{good.left_out[-1]}.\nThat is more than {MOST_BAD:.0%} of them. {fix}")
    for note in files.notes(len(good)):
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    if len(files.without_face) > MOST_WITHOUT_FACE * len(good):
        unfit = "More than half of the images have no detected face, so view/crop: face does not suit them; use center, box or none."
        console.print(unfit, style="bold red")
    return good, files


def show_images(images: Images, split: Split, known: Collection[LeftOut], console: Console) -> None:
    """What is used, what is left out beside what was told before, and how many images each part of the split has."""
    parts = {"train": split.train, "validation": split.valid, "hold-out": split.holdout}
    counts = [f"{len(images.groups[rows])} {part}" for part, rows in parts.items()]
    groups = len(set(images.groups.tolist()))
    console.print(f"{len(images)} images of {groups} groups: {', '.join(counts)} (split {split.hash})")
    for item in images.left_out:
        if item in known:
            continue
        console.print(f"  left out or noted: {item}", style="yellow")
    count = len(np.unique(split.part))
    if rare := rare_classes(images, count):
        words = f"  {len(rare)} classes have fewer groups than the split has parts ({count}), so they are missing in some parts"
        console.print(f"{words}: {some(rare)}", style="yellow")
    absent = absent_classes(images)
    if absent:
        console.print(f"  {len(absent)} classes have no image, and each counts as F1 0: {'; '.join(absent)}", style="yellow")


def show_extra(whole: Completed, confidences: Iterable[float], console: Console) -> None:
    """How many additional images train, and what of them and of the corrections was left out.

    Args:
        confidences: smallest probabilities at which an image with soft labels trains.
    """
    for one in whole.found:
        soft = one.extra.soft
        words = "labelled"
        if one.by_teacher:
            words = "answered by the teacher"
        elif one.extra.unlabelled:
            words = "without labels"
        elif soft is not None:
            kept = [f"{int((soft.max(axis=1) >= least).sum())} of them at labels/confidence {least:g}" for least in confidences]
            words = f"pseudo-labelled: {', '.join(kept)}"
        console.print(f"{len(one.extra.images)} additional training images from {one.source}, {words}")
    for item in whole.left_out:
        console.print(f"  left out or noted: {item}", style="yellow")
