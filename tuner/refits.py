"""Refits: which configurations of a search are trained again, on which folds and with which seeds, as trials of a run of their own."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from search_spaces.schema import Choice, Parameter, Space, When, flat, same
from trainables.config import TrialConfig, choosers
from trainables.data.splits import NO_FOLD
from trainables.metrics import BY_NAME
from trainables.models.settings import FrozenSettings, ModelConfig
from trainables.record import (
    DAMAGE,
    FIRST,
    IN,
    MODEL,
    Origin,
    Record,
    Result,
    RunCard,
    RunError,
    list_trials,
    name_of,
    ranked,
    read_config,
    read_record,
    searched_run,
    start_record,
    trial_folder,
    write_result,
)
from trainables.schedules import PlateauSettings
from trainables.storage import Folder, StorageError, write_atomically
from trainables.versions import code_version
from tuner.cli import Options
from tuner.runs import refuse_refit, resume_command

TOP = 3  # configurations, by default
APART = 1000  # between two seeds


@dataclass(frozen=True)
class RefitOptions:
    """What to train again, and how."""

    run: str = ""
    top: int | None = None  # the best finished trials
    trials: tuple[int, ...] = ()  # or these
    folds: int | None = None  # each configuration once on each fold; must be the run's own number
    all_data: bool = False  # on everything but the hold-out
    epochs_from: Literal["best", "all"] | None = None  # all_data: how many epochs
    last_epochs: int | None = None  # all_data: so many, on the images that validated, from the searched trial's weights
    seeds: int | None = None  # new ones for each
    storage: str | None = None  # where the new run lies; None: beside the search


@dataclass(frozen=True)
class Refit:
    """One trial to train."""

    origin: Origin
    config: TrialConfig


# What to train


def refuse_options(refit_options: RefitOptions, options: Options) -> None:
    """Raises: RunError naming all options that do not go together."""
    given = {
        "--run": refit_options.run,
        "--top": refit_options.top,
        "--trials": refit_options.trials,
        "--folds": refit_options.folds,
        "--all-data": refit_options.all_data,
        "--epochs-from": refit_options.epochs_from,
        "--last-epochs": refit_options.last_epochs,
        "--seeds": refit_options.seeds,
        "--name": options.name,
        "--storage": refit_options.storage,
    }
    named = [option for option, value in given.items() if value]
    mistakes = []
    if options.resume:
        if named:
            mistakes.append(f"--resume keeps what was chosen when the refits began; remove {', '.join(named)}")
    else:
        if not refit_options.run:
            mistakes.append("give --run (the search whose configurations are trained again), or --resume (refits to resume)")
        if refit_options.top is not None and refit_options.top < 1:
            mistakes.append(f"--top is {refit_options.top}; write 1 or more")
        if refit_options.top is not None and refit_options.trials:
            mistakes.append("--top takes the best trials, --trials those that you name; give one of them")
        if refit_options.folds and refit_options.all_data:
            mistakes.append(
                "--folds keeps a validation fold for each model, --all-data none; give one of them, then the other in a separate run"
            )
        if not (refit_options.folds or refit_options.all_data or refit_options.seeds):
            mistakes.append("give --folds N (every fold), --all-data (all but the hold-out), or --seeds N (other seeds)")
        if refit_options.epochs_from and not refit_options.all_data:
            mistakes.append("--epochs-from is for --all-data, where no validation split chooses the epoch; remove it")
        if refit_options.last_epochs is not None:
            mistakes += wrong_last_epochs(refit_options, refit_options.last_epochs)
    if mistakes:
        raise RunError("\n".join(mistakes))


def wrong_last_epochs(refit_options: RefitOptions, last: int) -> Iterator[str]:
    """What does not go together with this number of last epochs."""
    if last < 1:
        yield f"--last-epochs is {last}; write 1 or more"
    if not refit_options.all_data:
        yield "--last-epochs is for --all-data: the images that validated train then, and none are left to validate; give both"
    if refit_options.epochs_from:
        yield "--epochs-from trains from the first weights, --last-epochs goes on from the trained ones; give one of them"


def choose(run: Folder, card: RunCard, refit_options: RefitOptions) -> list[Record]:
    """The trials whose configurations are trained again, best first or as they were named.

    Raises: RunError when a named trial is not there, is damaged or has no score, and when none has finished.
    """
    refuse_refit(run, card)
    records, damaged = read_whole(run)
    if not refit_options.trials:
        finished = [record for record in records.values() if record.result.state == "finished" and record.best]
        if not finished:
            states = [record.result.state for record in records.values()] + ["damaged"] * len(damaged)
            there = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "there are none"
            raise RunError(
                f"no trial of {card.name} has finished ({there}). Resume it: {resume_command(run)}, "
                "or name trials that have a score: --trials"
            )
        return ranked(finished, BY_NAME[card.metric].sign)[: refit_options.top or TOP]
    mistakes = []
    for number in refit_options.trials:
        if number in damaged:
            mistakes.append(f"trial {number} of {card.name} cannot be read ({damaged[number]})")
        elif number not in records:
            mistakes.append(f"{card.name} has no trial {number}; it has {', '.join(map(str, records)) or 'none'}")
        elif not records[number].best:
            result = records[number].result
            mistakes.append(f"trial {number} of {card.name} has no score ({result.state}: {result.reason})")
    if mistakes:
        raise RunError("\n".join(mistakes))
    return [records[number] for number in refit_options.trials]


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


def plan_refits(chosen: Sequence[Record], refit_options: RefitOptions, own: int) -> list[Refit]:
    """Every trial to train, configuration by configuration, seed by seed, fold by fold.

    Args:
        own: folds of the search's split.
    Raises: RunError for another number of folds than the search's, and for configurations that only a score can train.
    """
    if refit_options.folds and own == 1:
        why = "the data of the search has a validation part of its own, so there are no other folds to train on"
        raise RunError(f"--folds is {refit_options.folds}, but {why}; give --all-data or --seeds N")
    if refit_options.folds not in (None, own):
        raise RunError(f"--folds is {refit_options.folds}, but the split.csv of the search has {own} folds; write --folds {own}")
    if refit_options.last_epochs:
        refuse_what_cannot_go_on(chosen, refit_options.last_epochs)
    from_the_first = refit_options.all_data and not refit_options.last_epochs
    by_score = [record.number for record in chosen if isinstance(record.config.schedule, PlateauSettings)] if from_the_first else []
    if by_score:
        raise RunError(
            f"schedule/name is plateau in trial {', '.join(map(str, by_score))}: it lowers the learning rate by the validation score, and "
            "--all-data has no validation split. Choose other trials with --trials, or give --folds"
        )
    refits = []
    for record in chosen:
        origin = Origin(record.number, record.best["epoch"], record.best["score"])
        seed = record.config.seed
        for again in [seed + APART * (number + 1) for number in range(refit_options.seeds)] if refit_options.seeds else [seed]:
            refits += [Refit(origin, changed(record, refit_options, seed=again, fold=fold)) for fold in folds_of(record, refit_options)]
    return refits


def refuse_what_cannot_go_on(chosen: Sequence[Record], last: int) -> None:
    """Raises: RunError naming the trials whose training has no such last epochs."""
    mistakes = []
    for record in chosen:
        epochs = record.config.epochs
        if record.config.model.is_probe:
            mistakes.append(f"trial {record.number} is a probe, whose heads are fitted at once, so there are no epochs to go on with")
        elif not record.has_model:
            mistakes.append(f"trial {record.number} has no weights to go on from: {record.model} is gone (run/keep says how many are kept)")
        elif last > epochs:
            mistakes.append(f"--last-epochs is {last}, and trial {record.number} has {epochs} epochs; write at most {epochs}")
    if mistakes:
        fix = "Choose other trials with --trials, or train from the first weights: --all-data without --last-epochs"
        raise RunError("\n".join([*mistakes, fix]))


def folds_of(record: Record, refit_options: RefitOptions) -> Iterable[int]:
    """The folds that validate, each in a trial of its own."""
    if refit_options.folds:
        return range(refit_options.folds)
    return [NO_FOLD if refit_options.all_data else record.config.data.fold]


def changed(record: Record, refit_options: RefitOptions, *, seed: int, fold: int) -> TrialConfig:
    """The configuration of a refit. Without a validation split it trains to the best epoch of the search, where the schedule ends."""
    values = record.config.values()
    values["seed"], values["data"]["fold"] = seed, fold
    if refit_options.all_data:
        values["train"]["patience"] = 0
        if refit_options.last_epochs:
            go_on(values, record, refit_options.last_epochs)
        elif refit_options.epochs_from != "all":
            values["epochs"] = record.best["epoch"]
    return TrialConfig.from_values(values)


def go_on(values: dict[str, Any], record: Record, last: int) -> None:
    """Change a configuration to that of the last epochs, on the fold that validated, from the best weights of its trial.

    The learning rate is that which the trial had so many epochs before its best one, or, where there were not as many, its highest; a
    cosine brings it down to 0.
    """
    best = record.best["epoch"]
    before = next((report["lr"] for report in record.reports if report["epoch"] == best - last), record.config.optimizer.lr)
    values["data"]["only"] = record.config.data.fold
    values["epochs"], values["optimizer"]["lr"] = last, before
    values["schedule"], values["semi"] = {"name": "cosine"}, {"name": "none"}
    model = values["model"]
    model["heads"] = "random"  # Those of the weights take their place.
    if isinstance(record.config.model, FrozenSettings) and not record.config.model.for_ever:
        # What had thawed by then stays so.
        model["unfreeze_epoch"] -= best
        if model["unfreeze_epoch"] <= 0:
            values["model"] = {name: model[name] for name in ModelConfig.model_fields} | {"freeze": "none"}


def read_refits(run: Folder, card: RunCard) -> list[Refit]:
    """The trials of a resumed refit. Raises: RunError for a run that is none, and for settings that cannot be read."""
    if not card.refit_of:
        raise RunError(f"{card.name} is a search; resume it: {resume_command(run)}, or train its best again: --run {name_of(run)}")
    refits, mistakes = [], []
    for number, origin in enumerate(card.origins):
        file = trial_folder(run, number) / "config.json"
        try:
            refits.append(Refit(origin, read_config(file.parent)[0]))
        except StorageError:
            raise
        except DAMAGE as error:
            mistakes.append(f"{file} cannot be read ({type(error).__name__}: {error}); restore it from a backup")
    if mistakes:
        raise RunError("\n".join(mistakes))
    return refits


# The new run


def card_of(card: RunCard, run: Folder, searched: Folder, refits: Sequence[Refit]) -> RunCard:
    """What all refits share; the groups are split as in the search."""
    place = run.parent.resolve()
    named = IN if place == searched.resolve() else searched.name if place == searched.parent.resolve() else str(searched.resolve())
    return replace(
        card,
        name=run.name,
        epochs=max(refit.config.epochs for refit in refits),
        trials=len(refits),
        command=shlex.join(["python", "-m", "tuner.refit", *sys.argv[1:]]),
        refit_of=named,
        origins=tuple(refit.origin for refit in refits),
    )


def show_chosen(card: RunCard, searched: Folder, chosen: Sequence[Record], refits: Sequence[Refit], console: Console) -> None:
    """Which configurations, and which trials of them."""
    what = f": {len(refits)} refits of {len(chosen)} configurations of {searched.name}"
    console.print(Text.assemble((card.name, "bold"), what))
    for record in chosen:
        numbers = [number for number, refit in enumerate(refits) if refit.origin.trial == record.number]
        trials = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {', '.join(map(str, numbers))}"
        best = f"{BY_NAME[card.metric].title} {record.best['score']:.3f} at epoch {record.best['epoch']} of {record.config.epochs}"
        console.print(f"  {trials}: {searched.name}/{record.number}, {record.config.model.backbone}, {best}")
    if refits[0].config.data.goes_on:
        console.print(
            f"No validation split: from the weights of each, {refits[0].config.epochs} epochs on the images that validated it. The last "
            "epoch is kept, and only the hold-out (test) is scored."
        )
    elif refits[0].config.data.fold == NO_FOLD:
        console.print("No validation split: all but the hold-out train, the last epoch is kept, and only the hold-out (test) is scored.")
        if any(record.config.train.patience for record in chosen):
            console.print("train/patience is 0 here: it needs validation scores.")


def space_of(configs: Sequence[TrialConfig]) -> Space:
    """What differs among configurations as a space, in which each of them has its place."""
    values = [flat(config.values()) for config in configs]
    owners = {path: (name, chooser) for name, chooser in choosers().items() for paths in chooser.settings.values() for path in paths}
    fixed: dict[str, Any] = {}
    parameters: list[Parameter] = []
    for path in dict.fromkeys(path for one in values for path in one):
        has = [one for one in values if path in one]
        known = [one[path] for number, one in enumerate(has) if not any(same(one[path], other[path]) for other in has[:number])]
        when: When = ()
        if len(has) < len(values):
            name, chooser = owners[path]
            when = ((name, tuple(chooser.having(path))),)
        if when or len(known) > 1:
            parameters.append(Parameter(path, Choice(tuple(known)), when, ""))
        else:
            fixed[path] = known[0]
    # What chooses an entry stands before what the entry has.
    return Space("refit", "refit", {}, fixed, tuple(sorted(parameters, key=lambda one: bool(one.when))), (), {})


def lay_out(run: Folder, card: RunCard, refits: Sequence[Refit]) -> None:
    """Begin the records that are missing: settings, weights to go on from, and in words which refit it is.

    Raises: RunError where such weights are gone.
    """
    there = {folder.name for folder in list_trials(run)}
    searched = searched_run(run, card)
    for number, refit in enumerate(refits):
        if str(number) not in there:
            folder = trial_folder(run, number)
            start_record(folder, refit.config)
            if refit.config.data.goes_on:
                write_atomically(folder / FIRST, weights_of(searched, refit.origin))
            words = (note(searched.name, refit),)
            result = Result("interrupted", "not started yet", 0, card.split, "", code_version(), attempt=0, notes=words)
            write_result(folder, result)


def weights_of(searched: Folder, origin: Origin) -> bytes:
    """The best weights of a searched trial. Raises: RunError."""
    file = trial_folder(searched, origin.trial) / MODEL
    try:
        return file.read_bytes()
    except StorageError:
        raise
    except OSError as error:
        raise RunError(f"{file}, from which a refit goes on, cannot be read ({error.strerror or error}); restore it") from None


def note(searched: str, refit: Refit) -> str:
    """Which refit it is: `refit of faces/7: fold 2, seed 1000`."""
    config = refit.config
    trains = f"fold {config.data.fold}" if config.data.fold != NO_FOLD else f"all but the hold-out, {config.epochs} epochs"
    if config.data.goes_on:
        trains = f"its weights of epoch {refit.origin.epoch}, then {config.epochs} epochs on fold {config.data.only} alone"
    return f"refit of {searched}/{refit.origin.trial}: {trains}, seed {config.seed}"
