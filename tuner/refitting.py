"""Refits: configurations that a search found, trained again on other sides or with other seeds, as trials of a run of their own.

Every trial is laid out before the first one is trained, so the records say what is left to do, whenever the command is ended.
"""

import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal

from ray.tune.search import Searcher
from rich.console import Console
from rich.text import Text

from search_spaces.schema import Choice, Parameter, Space, SpaceError, flat, same
from trainables.config import TrialConfig
from trainables.data.extra import complete
from trainables.data.layouts.reading import read_photos
from trainables.data.photos import Photos
from trainables.data.splits import NOBODY
from trainables.data.training import Data
from trainables.data.views import View, ViewFiles
from trainables.progress import progress_bar
from trainables.record import (
    DAMAGE,
    SPLIT,
    Origin,
    Record,
    Result,
    RunCard,
    RunError,
    find_run,
    list_trials,
    read_config,
    read_record,
    read_run,
    searched_run,
    start_record,
    trial_folder,
    write_result,
    write_run,
)
from trainables.restore_data import EXTRA, prove_extra, restore_split
from trainables.storage import Folder, StorageError, open_folder, write_whole
from trainables.versions import code_version
from tuner import cluster, rehearsal
from tuner.lock import hold
from tuner.options import Options
from tuner.prepare import Plan, data_folder, decode, name_run, tell_extra, tell_photos
from tuner.resume import Earlier, Stock
from tuner.settings import RunSettings
from tuner.summary import name_of, resume_command, summarize_refit
from tuner.sweep import Work, claim, train_and_sum_up, with_shares_of

TOP = 3  # configurations, where nothing else is asked for
APART = 1000  # between two seeds


@dataclass(frozen=True)
class Wish:
    """What to train again, and how."""

    run: str | None = None
    top: int | None = None  # the best finished trials
    trials: tuple[int, ...] = ()  # or these
    folds: int | None = None  # each configuration once on each fold; must be the run's own number
    all_data: bool = False  # on everything but the hold-out
    epochs_from: Literal["best", "all"] | None = None  # all_data: how many epochs
    seeds: int | None = None  # new ones for each
    storage: str | None = None  # where the new run lies; None: beside the search


@dataclass(frozen=True)
class Refit:
    """One trial to train."""

    origin: Origin
    config: TrialConfig


def refit(wish: Wish, options: Options, console: Console, start: Callable[[], cluster.Cluster]) -> int:
    """Run the command and return its exit code.

    Args:
        start: starts Ray; called when all has been checked.
    Raises: RunError, DataError, SpaceError, ConfigError, StorageError, ClusterError for what the user can mend. No record is touched then.
    """
    began = perf_counter()
    refuse_options(wish, options)
    with ExitStack() as stack:
        if options.resume:
            run = find_run(options.resume)
            stack.enter_context(hold(run))
            card = read_run(run)
            refits = read_refits(run, card)
            options = with_shares_of(card, options)
            searched = run  # its split.csv is a copy
            going_on = f": going on with {len(refits)} refits of {searched_run(run, card).name}"
            console.print(Text.assemble((card.name, "bold"), going_on))
        else:
            searched = find_run(wish.run)
            card = read_run(searched)
            chosen = choose(searched, card, wish)
            refits = plan_refits(chosen, wish)
            run = name_refit(wish.storage, options.name, searched)
            card = card_of(card, run, searched, refits)
            tell_chosen(card, searched, chosen, refits, console)
        plan, others = prepare(run, searched, card, refits, options, console)
        shares = {"cpus_per_trial": options.cpus_per_trial, "gpus_per_trial": options.gpus_per_trial}
        card = replace(card, data=str(plan.folder.resolve()), **shares)
        if not options.resume:
            stack.enter_context(claim(run))

        def write() -> None:
            if not options.resume:
                for file in (SPLIT, EXTRA):
                    if (searched / file).is_file():
                        write_whole(run / file, (searched / file).read_bytes())
            lay_out(run, card, refits)
            # Last: from here on it is a run, and all its trials are there.
            write_run(run, card)

        def searcher(plan: Plan, slots: cluster.Slots, stock: Stock, stopping: Callable[[], bool]) -> Searcher:
            # Damaged records are set aside by now; what takes their place is on disk before it is trained.
            lay_out(run, card, refits)
            return GivenSearcher(stock.proposals, slots=slots, stopping=stopping)

        work = Work(
            write=write,
            searcher=searcher,
            summarize=lambda board, seconds, soft_stop: summarize_refit(plan, card, board, seconds, soft_stop, console),
            go_on=resume_command(run, "tuner.refit"),
            others=others,
        )
        return train_and_sum_up(work, plan, options, start, began, console)


class GivenSearcher(Searcher):
    """Proposes given configurations in the order of their numbers, and learns nothing."""

    def __init__(self, proposals: Mapping[int, dict[str, Any]], *, slots: Callable[[], int], stopping: Callable[[], bool]):
        """
        Args:
            proposals: nested values by the trial's number.
            slots: trials that may run at a time.
            stopping: whether no more trials should begin.
        """
        super().__init__(metric="score", mode="max")
        self._left = deque(sorted(proposals.items()))
        self._slots = slots
        self._stopping = stopping
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._stopping() or not self._left:
            return Searcher.FINISHED
        if len(self._running) >= self._slots():
            return None
        number, values = self._left.popleft()
        self._running.add(trial_id)
        return {"number": number, "values": values}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records say what is left."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read, see `save`."""


# What to train


def refuse_options(wish: Wish, options: Options) -> None:
    """Raises: RunError naming all options that do not go together."""
    given = {
        "--run": wish.run,
        "--top": wish.top,
        "--trials": wish.trials,
        "--folds": wish.folds,
        "--all-data": wish.all_data,
        "--epochs-from": wish.epochs_from,
        "--seeds": wish.seeds,
        "--name": options.name,
        "--storage": wish.storage,
    }
    named = [option for option, value in given.items() if value]
    mistakes = []
    if options.resume:
        if named:
            mistakes.append(f"--resume goes on with what was chosen then; leave out {', '.join(named)}")
    else:
        if not wish.run:
            mistakes.append("give --run a search whose configurations are to be trained again, or --resume refits to go on with")
        if wish.top is not None and wish.top < 1:
            mistakes.append(f"--top is {wish.top}; write 1 or more")
        if wish.top is not None and wish.trials:
            mistakes.append("--top takes the best trials, --trials those that you name; give one of them")
        if wish.folds and wish.all_data:
            mistakes.append(
                "--folds keeps a fold back for each model, --all-data none; give one of them, then the other in a run of its own"
            )
        if not (wish.folds or wish.all_data or wish.seeds):
            mistakes.append("say what to train: --folds on every fold, --all-data on all but the hold-out, --seeds 3 with other seeds")
        if wish.epochs_from and not wish.all_data:
            mistakes.append("--epochs-from is for --all-data, where nobody chooses the epoch; leave it out")
    if mistakes:
        raise RunError("\n".join(mistakes))


def choose(run: Folder, card: RunCard, wish: Wish) -> list[Record]:
    """The trials whose configurations are trained again, best first or as they were named.

    Raises: RunError when a named trial is not there, is damaged or has no score, and when none has finished.
    """
    if card.refit_of:
        raise RunError(f"{card.name} holds refits itself; choose from the search: --run {name_of(searched_run(run, card))}")
    records, damaged = read_whole(run)
    if not wish.trials:
        finished = [record for record in records.values() if record.result.state == "finished" and record.best]
        if not finished:
            states = [record.result.state for record in records.values()] + ["damaged"] * len(damaged)
            there = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "there are none"
            raise RunError(
                f"no trial of {card.name} has finished ({there}). Go on with it: {resume_command(run)}, "
                "or name trials that have a score: --trials"
            )
        return sorted(finished, key=lambda record: (-record.best["score"], record.number))[: wish.top or TOP]
    mistakes = []
    for number in wish.trials:
        if number in damaged:
            mistakes.append(f"trial {number} of {card.name} is damaged ({damaged[number]})")
        elif number not in records:
            mistakes.append(f"there is no trial {number} in {card.name}; there are {', '.join(map(str, records)) or 'none'}")
        elif not records[number].best:
            result = records[number].result
            mistakes.append(f"trial {number} of {card.name} has no score ({result.state}: {result.reason})")
    if mistakes:
        raise RunError("\n".join(mistakes))
    return [records[number] for number in wish.trials]


def read_whole(run: Folder) -> tuple[dict[int, Record], dict[int, str]]:
    """The trials of a run by number, and why others cannot be read."""
    records, damaged = {}, {}
    for folder in list_trials(run):
        try:
            records[int(folder.name)] = read_record(folder)
        except StorageError:
            raise
        except DAMAGE as error:
            damaged[int(folder.name)] = f"{type(error).__name__}: {error}"
    return records, damaged


def plan_refits(chosen: Sequence[Record], wish: Wish) -> list[Refit]:
    """Every trial to train, configuration by configuration, seed by seed, fold by fold.

    Raises: RunError for another number of folds than the run's, and for configurations that only a score can train.
    """
    own = chosen[0].config.data.folds
    if wish.folds not in (None, own):
        raise RunError(f"the people were parted into {own} folds when the search began, and its split.csv keeps them: write --folds {own}")
    by_score = [record.number for record in chosen if record.config.schedule.name == "plateau"] if wish.all_data else []
    if by_score:
        raise RunError(
            f"schedule/name is plateau in trial {', '.join(map(str, by_score))}: it drops the learning rate by the score, and with "
            "--all-data nobody scores. Choose other trials with --trials, or give --folds"
        )
    refits = []
    for record in chosen:
        origin = Origin(record.number, record.best["epoch"], record.best["score"])
        seed = record.config.seed
        for again in [seed + APART * (number + 1) for number in range(wish.seeds)] if wish.seeds else [seed]:
            refits += [Refit(origin, changed(record, wish, seed=again, fold=fold)) for fold in folds_of(record, wish)]
    return refits


def folds_of(record: Record, wish: Wish) -> Iterable[int]:
    """The folds that validate, each in a trial of its own."""
    if wish.folds:
        return range(wish.folds)
    return [NOBODY if wish.all_data else record.config.data.fold]


def changed(record: Record, wish: Wish, *, seed: int, fold: int) -> TrialConfig:
    """The configuration of a refit. Where nobody validates, the best epoch was found in the search, and the schedule ends there."""
    values = record.config.values()
    values["seed"], values["data"]["fold"] = seed, fold
    if wish.all_data:
        values["train"]["patience"] = 0
        if wish.epochs_from != "all":
            values["epochs"] = record.best["epoch"]
    return TrialConfig.from_values(values)


def read_refits(run: Folder, card: RunCard) -> list[Refit]:
    """The trials of a refit that goes on. Raises: RunError for a run that is none, and for settings that cannot be read."""
    if not card.refit_of:
        raise RunError(f"{card.name} is a search; go on with it: {resume_command(run)}, or train its best again: --run {name_of(run)}")
    refits, mistakes = [], []
    for number, origin in enumerate(card.origins):
        file = trial_folder(run, number) / "config.json"
        try:
            refits.append(Refit(origin, read_config(file.parent)[0]))
        except StorageError:
            raise
        except DAMAGE as error:
            mistakes.append(f"{file} cannot be read ({type(error).__name__}: {error}); bring a copy back")
    if mistakes:
        raise RunError("\n".join(mistakes))
    return refits


# The new run


def name_refit(storage: str | None, wanted: str | None, searched: Folder) -> Folder:
    """A folder for the refits that is not there yet. Raises: RunError, StorageError."""
    runs = open_folder(storage) if storage else searched.parent
    first = f"{searched.name}-refit"
    names = (first if number == 1 else f"{first}-{number}" for number in range(1, 10**6))
    return name_run(wanted or next(name for name in names if not (runs / name).exists()), "", runs)


def card_of(card: RunCard, run: Folder, searched: Folder, refits: Sequence[Refit]) -> RunCard:
    """What all refits share; the people are parted as in the search."""
    beside = run.parent.resolve() == searched.parent.resolve()
    return replace(
        card,
        name=run.name,
        epochs=max(refit.config.epochs for refit in refits),
        trials=len(refits),
        command=shlex.join(["python", "-m", "tuner.refit", *sys.argv[1:]]),
        refit_of=searched.name if beside else str(searched.resolve()),
        origins=tuple(refit.origin for refit in refits),
    )


def tell_chosen(card: RunCard, searched: Folder, chosen: Sequence[Record], refits: Sequence[Refit], console: Console) -> None:
    """Which configurations, and which trials of them."""
    what = f": {len(refits)} refits of {len(chosen)} configurations of {searched.name}"
    console.print(Text.assemble((card.name, "bold"), what))
    for record in chosen:
        numbers = [number for number, refit in enumerate(refits) if refit.origin.trial == record.number]
        trials = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {numbers[0]} to {numbers[-1]}"
        best = f"macro F1 {record.best['score']:.4f} at epoch {record.best['epoch']} of {record.config.epochs}"
        console.print(f"  {trials}: {searched.name}/{record.number}, {record.config.model.backbone}, {best}", highlight=False)
    if refits[0].config.data.fold == NOBODY:
        console.print("Nobody validates: all but the hold-out train, the last epoch is kept, and the hold-out is the only judge.")
        if any(record.config.train.patience for record in chosen):
            console.print("train/patience is 0 here: it would need a score.", highlight=False)


def prepare(
    run: Folder, searched: Folder, card: RunCard, refits: Sequence[Refit], options: Options, console: Console
) -> tuple[Plan, dict[int, Data]]:
    """Read, decode and rehearse; the plan, and the data by the fold that validates.

    Args:
        searched: the run that has the split.
    Raises: RunError, DataError, SpaceError for what the user can mend.
    """
    configs = [refit.config for refit in refits]
    settings = configs[0].data
    folder = data_folder(options, Earlier(searched, card, None), console)
    wanted = sorted({View.of(config.view) for config in configs}, key=str)
    relabels, tasks = {config.labels.relabel for config in configs}, [config.task for config in configs]

    def decoded(photos: Photos) -> tuple[Photos, ViewFiles]:
        return decode(photos, wanted, True, console)

    photos, views = decoded(read_photos(folder, settings))
    photos, split = restore_split(searched, replace(card, name=searched.name), photos, views.digests, settings.fold)
    tell_photos(photos, split, console)
    by_data = any(config.normalize == "dataset" for config in configs)
    others = {}
    for fold in dict.fromkeys(config.data.fold for config in configs):
        data = Data.of(photos, replace(split, fold=fold), views, with_statistics=by_data)
        # For each fold anew: whom the extra photos may show depends on who validates.
        whole = complete(data, folder, settings, tasks, relabels, views.digests, decoded)
        prove_extra(searched, whole.table)
        others[fold] = whole.data

    tell_extra(whole, sorted({config.labels.confidence for config in configs}), console)

    rehearsed = list({refit.origin: refit.config for refit in reversed(refits)}.values())
    rehearse(searched.name, rehearsed, others)
    amount = RunSettings(
        trials=len(refits),
        epochs=card.epochs,
        grace=card.epochs,  # no rung before the end, so ASHA judges nobody
        early_stopping=False,
        keep=len(refits),
        **({} if options.retries is None else {"retries": options.retries}),
    )
    plan = Plan(
        run=run,
        space=space_of(configs),
        settings=amount,
        folder=folder,
        sides=settings,
        data=others[settings.fold],
        digests=views.digests,
        extra=whole.table,
        fixed={},
        seed=card.seed,
        attributes=card.predicts or photos.scheme.names,
        drawn=len(refits),
        rehearsed=[config.values() for config in rehearsed],
    )
    return plan, others


def rehearse(searched: str, configs: Sequence[TrialConfig], data: Mapping[int, Data]) -> None:
    """Train each configuration for a step. Raises: SpaceError with all that cannot be trained."""
    mistakes = []
    with progress_bar("preflight: one step of each configuration", len(configs)) as advance:
        for config in configs:
            alone = replace(space_of([config]), file=searched)
            try:
                rehearsal.rehearse(alone, [config.values()], data[config.data.fold], advance)
            except SpaceError as error:
                mistakes += error.mistakes
    if mistakes:
        raise SpaceError(list(dict.fromkeys(mistakes)))


def space_of(configs: Sequence[TrialConfig]) -> Space:
    """What differs among configurations as a space, in which each of them has its place."""
    values = [flat(config.values()) for config in configs]
    choices: dict[str, list[Any]] = {path: [] for path in values[0]}
    for path, known in choices.items():
        known += [one[path] for number, one in enumerate(values) if not any(same(one[path], other[path]) for other in values[:number])]
    fixed = {path: known[0] for path, known in choices.items() if len(known) == 1}
    parameters = [Parameter(path, Choice(tuple(known)), (), "") for path, known in choices.items() if len(known) > 1]
    return Space("refit", "refit", {}, fixed, tuple(parameters), (), {})


def lay_out(run: Folder, card: RunCard, refits: Sequence[Refit]) -> None:
    """Begin the records that are not there: settings, and in words which refit it is."""
    there = {folder.name for folder in list_trials(run)}
    name = searched_run(run, card).name
    for number, refit in enumerate(refits):
        if str(number) not in there:
            folder = trial_folder(run, number)
            start_record(folder, refit.config)
            result = Result("interrupted", "has not begun", 0, card.split, "", code_version(), attempt=0, notes=(note(name, refit),))
            write_result(folder, result)


def note(searched: str, refit: Refit) -> str:
    """Which refit it is: `refit of faces/7: fold 2, seed 1000`."""
    config = refit.config
    side = f"fold {config.data.fold}" if config.data.fold != NOBODY else f"all but the hold-out, {config.epochs} epochs"
    return f"refit of {searched}/{refit.origin.trial}: {side}, seed {config.seed}"
