"""Reading runs: the trials that can stand in an ensemble, and the images that choose and score it."""

import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from trainables.baseline import FIRST
from trainables.card import Card, read_card
from trainables.commands import typed
from trainables.data.images import Images, LeftOut, read_descriptions, truth_of
from trainables.data.splits import NO_FOLD
from trainables.data.targets import Kind, Scheme, Task, no_answer, read_task
from trainables.data.views import View
from trainables.metrics import Metric, others_of
from trainables.metrics import metric_of as find_metric
from trainables.metrics.evidence import Evidence, evidence
from trainables.record import (
    DAMAGE,
    FINALISTS,
    IN,
    MODEL,
    RUNS,
    SPLIT,
    Predictions,
    Record,
    RunCard,
    RunError,
    list_trials,
    name_of,
    read_predictions,
    read_record,
    read_run,
    searched_run,
)
from trainables.registry import ConfigError, UnknownEntryError
from trainables.storage import Folder

Key = tuple[str, int]  # a run's folder, and a trial's number
HELD_OUT, EVERY_FOLD = "holdout", "every fold"  # parts of the split beside `fold 0`, `fold 1`, ...


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled images of one part of the split; arrays are parallel, one entry an image."""

    ids: tuple[str, ...]
    groups: np.ndarray  # (n,)
    labels: np.ndarray  # (n, Classes) class ids in the scheme's order
    scheme: Scheme
    parts: np.ndarray  # (n,) the part of each: holdout, fold 0, fold 1, ...
    tags: np.ndarray | None = None  # (n, tags) bool, where the scheme has Tags
    numbers: np.ndarray | None = None  # (n,) where the scheme has a Number

    @classmethod
    def of(cls, images: Images) -> Self:
        """Images that are in no part yet."""
        parts = np.full(len(images), "", dtype=object)
        return cls(images.ids, images.groups, images.labels, images.scheme, parts, images.tags, images.numbers)

    def take(self, rows: np.ndarray) -> "Sample":
        """Some of the images, in the given order."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        tags, numbers = (None if one is None else one[rows] for one in (self.tags, self.numbers))
        return Sample(ids, self.groups[rows], self.labels[rows], self.scheme, self.parts[rows], tags, numbers)

    def truth(self, part: Scheme) -> np.ndarray:
        """What is true of the targets of a part of the scheme: joint classes (n,), tags (n, tags) or numbers (n,)."""
        return truth_of(self.scheme, part, self.labels, self.tags, self.numbers)

    def score(self, metric: Metric, part: Scheme, probabilities: np.ndarray) -> float:
        """The score of probabilities (n, classes of `part`)."""
        return metric.score(self.truth(part), probabilities)

    def evidence(self, metric: Metric, part: Scheme, probabilities: np.ndarray) -> Evidence:
        """All that the score of probabilities (n, classes of `part`) and its uncertainty take."""
        return evidence(metric, self.truth(part), probabilities, self.groups)


@dataclass(frozen=True, eq=False)
class Trial:
    """One configuration that can predict: by one model, or by the mean of one model a fold."""

    name: str  # as members are called by, such as faces/7; no two of Runs are alike
    record: Record  # of a configuration trained on every fold: that of its first fold
    task: Task  # of the heads whose targets the run's metric scores
    valid: np.ndarray  # (n, columns of the answer to the task's scheme), float64; rows as in Runs.valid
    score: float  # by the run's metric, on validation
    models: tuple[Folder, ...]  # the files of weights that answer; none where these were not kept
    evaluated: Mapping[str, Folder]  # by part of the split: the weights whose answers for it are in `valid`, and which have not seen it

    def __str__(self) -> str:
        return self.name


def train_again(names: Sequence[str]) -> list[str]:
    """The commands, one a run, that give trials (by name, such as `faces/3`) the weights that were not kept."""
    by_run: dict[str, list[str]] = {}
    for name in names:
        run, _, number = name.rpartition("/")
        by_run.setdefault(run, []).append(number)
    return [typed(f"tuner.refit --run {shlex.quote(run)} --trials {','.join(numbers)} --all-data") for run, numbers in by_run.items()]


def task_words(trial: Trial) -> str:
    """`joint`, `heads` or one target as the settings say it; else one word group a head, such as `left x right, up`."""
    named = trial.record.config.task
    return named if isinstance(named, str) else ", ".join(" x ".join(head) for head in trial.task.heads)


@dataclass(frozen=True)
class Runs:
    """Runs that were split alike, so that their trials can be compared and combined."""

    folders: tuple[Folder, ...]
    cards: tuple[RunCard, ...]
    part: str  # whose images choose: `fold 0`, or `every fold`
    valid: Sample  # the images that choose
    holdout: Sample  # the images that score
    learned: Sample  # all others: of them every trial saw some or all
    trials: tuple[Trial, ...]  # that can predict, run by run, by number
    unkept: tuple[Trial, ...]  # likewise, that have a validation prediction and no weights any more: the best was picked from them too
    left_out: tuple[LeftOut, ...]
    first: tuple[Trial, ...] = ()  # of each search that was raced, where it left the race: `valid` has the images of its own fold alone

    @property
    def asked(self) -> list[Folder]:
        """The runs that a command line names; finalists come with their search."""
        return [folder for folder, card in zip(self.folders, self.cards, strict=True) if card.refit_of != IN]

    @property
    def scheme(self) -> Scheme:
        """The targets that the run's metric scores."""
        return self.cards[0].scheme.of_kind(self.metric.target)

    @property
    def metric(self) -> Metric:
        return metric_of(self.folders[0], self.cards[0])

    @property
    def also(self) -> list[Metric]:
        """The metrics that the first run reports beside its own."""
        return others_of(self.cards[0].also, self.metric, self.cards[0].predicted)

    @property
    def best(self) -> Trial:
        """The trial that can predict with the best score on validation; the first where several have it."""
        return max(self.trials, key=lambda trial: self.metric.sign * trial.score)

    @property
    def widest(self) -> Trial:
        """The best trial on validation of those that predict the most targets, with weights or without."""
        return max((*self.trials, *self.unkept), key=lambda trial: (len(trial.task.scheme.targets), self.metric.sign * trial.score))


def metric_of(run: Folder, card: RunCard) -> Metric:
    """The metric that a run was searched by. Raises: RunError where it is not known here."""
    try:
        return find_metric(card.metric, card.predicted)
    except ConfigError as error:
        raise RunError(f"{run}/run.json: {error}") from None


def newest_run(runs: Path = RUNS) -> Path:
    """The run begun last, of those in a local folder. Raises: RunError when there is none."""
    cards = sorted(runs.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    if not cards:
        raise RunError(f"there is no run in {runs}/ yet; {typed('tuner.run')} makes one")
    return cards[-1].parent


def load_runs(folders: Sequence[Folder], finalists: bool = True) -> Runs:
    """The trials that have a validation prediction, however they ended: `trials` where they have weights too, else `unkept`. The others,
    and those without weights, are named in `left_out`. With a search come its finalists, where these were raced.

    Configurations that were trained on every fold come first: they are evaluated on all groups that are not held out, each image by the
    model that did not train on it. Where there are none, all trials are validated on one fold, that of the first trial. A refit on all
    data, which has no validation score, takes the place of the searched trial that it was chosen as, with that trial's validation
    prediction, where that is among the folders too.

    Args:
        finalists: whether those of a search come with it.
    Raises: RunError when runs differ in split, scheme or metric, when run.json or split.csv is damaged, and when no trial can be used.
    """
    folders = with_finalists(folders) if finalists else list(folders)
    cards = [read_run(folder) for folder in folders]
    _refuse_mixed(folders, cards)
    parts = _read_parts(folders[0], cards[0].scheme)
    found, left_out = _read_all(folders, cards)
    refits = [one for one in found if one.record.config.data.fold == NO_FOLD]
    scored = [one for one in found if one.record.config.data.fold != NO_FOLD]
    folds = {part for part in parts if part != HELD_OUT}
    metric = metric_of(folders[0], cards[0])
    parts[EVERY_FOLD] = _joined(parts, folds)
    whole, partial = _by_configuration(scored, folds)
    damaged: list[str] = []
    first: tuple[Trial, ...] = ()
    if any(_can_predict(group) for group in whole.values()):
        words = f"trials validated on one of the {len(folds)} folds only, while others were on each"
        elsewhere = LeftOut(words, tuple(one.name for one in partial))
        part = EVERY_FOLD
        begun = [one for one in partial if one.record.number == FIRST and one.chosen_as == one.key]
        first = tuple(
            trial for one in begun for trial in _read_trials({one.key: [one]}, parts, _fold_of(one.record), metric, damaged).values()
        )
        trials = _read_trials(whole, parts, part, metric, damaged)
    else:
        leading = next((one for one in scored if one.record.has_model), None)
        part = _fold_of(leading.record) if leading else ""
        words = f"trials validated on another fold than {part}: they are for out-of-fold scores"
        # One without weights is named for that already.
        others = [one for one in scored if one.record.has_model and _fold_of(one.record) != part]
        elsewhere = LeftOut(words, tuple(f"{one.name} ({_fold_of(one.record)})" for one in others))
        trials = _read_trials({one.key: [one] for one in scored if _fold_of(one.record) == part}, parts, part, metric, damaged)
    replacing, replaced, alone = _replacements(trials, scored, refits, metric, damaged)
    left_out += [
        elsewhere,
        LeftOut("damaged records", tuple(damaged)),
        LeftOut("trials without a validation score: give the run that they were chosen from too (--run), to choose by", tuple(alone)),
        LeftOut("searched trials: their refits on all data take their place", tuple(str(trials[key]) for key in replaced)),
    ]
    left_out = _merged(left_out)
    known = {key: trial for key, trial in trials.items() if key not in replaced} | replacing
    order = [one.key for one in found]
    ordered = [known[key] for key in sorted(known, key=order.index)]
    chosen, unkept = ([trial for trial in ordered if bool(trial.models) is kept] for kept in (True, False))
    if not chosen:
        there = "; ".join(map(str, left_out)) or "there are no trials"
        fix = "" if alone else f" Resume until one has reached the end of an epoch: {typed(f'tuner.run --resume {name_of(folders[0])}')}"
        raise RunError(f"{_names(folders)}: no trial has both a validation prediction and weights ({there}).{fix}")
    return Runs(
        tuple(folders),
        tuple(cards),
        part,
        parts[part],
        parts[HELD_OUT],
        parts[EVERY_FOLD],
        tuple(chosen),
        tuple(unkept),
        tuple(left_out),
        first,
    )


def with_finalists(folders: Sequence[Folder]) -> list[Folder]:
    """The folders, each followed by that of its finalists."""
    found = [place for folder in folders for place in (folder, folder / FINALISTS) if place == folder or (place / "run.json").is_file()]
    return list({folder.resolve(): folder for folder in found}.values())


@dataclass(frozen=True)
class _Found:
    """A record with a prediction, and the run that it lies in."""

    name: str
    run: Folder
    card: RunCard
    record: Record

    @property
    def key(self) -> Key:
        return str(self.run.resolve()), self.record.number

    @property
    def chosen_as(self) -> Key:
        """The searched trial whose configuration this is."""
        if not self.card.origins:
            return self.key
        return str(searched_run(self.run, self.card).resolve()), self.card.origins[self.record.number].trial


def _read_all(folders: Sequence[Folder], cards: Sequence[RunCard]) -> tuple[list[_Found], list[LeftOut]]:
    """The records that have a prediction, run by run, by number; a record without weights is named too."""
    short = [folder.resolve().name for folder in folders]
    found, unknown, damaged, bare = [], [], [], []
    for folder, card, run in zip(folders, cards, short, strict=True):
        called = run if short.count(run) == 1 else str(folder.resolve())
        for place in list_trials(folder):
            name = f"{called}/{place.name}"
            try:
                record = read_record(place)
                predicts = record.best and (place / "valid.npz").is_file()
                if predicts:
                    found.append(_Found(name, folder, card, record))
                unraced = card.refit_of == IN and not record.reports
                if not (predicts and record.has_model or unraced):
                    bare.append(f"{name} ({record.result.state})")
            except UnknownEntryError as error:
                unknown.append(f"{name} ({error})")
            except DAMAGE as error:
                damaged.append(_damage(name, error))
    return found, [
        LeftOut("damaged records", tuple(damaged)),
        LeftOut("trials without prediction or weights", tuple(bare)),
        LeftOut("trials whose settings choose what this version does not have", tuple(unknown)),
    ]


def _by_configuration(scored: Sequence[_Found], folds: set[str]) -> tuple[dict[Key, list[_Found]], list[_Found]]:
    """The records of each configuration that was validated on every fold, by its first one's key, and the records of the others."""
    groups: dict[tuple[Folder, Key, int], list[_Found]] = {}
    for one in scored:
        groups.setdefault((one.run, one.chosen_as, one.record.config.seed), []).append(one)
    searched = {(one.key, one.record.config.seed): one for one in scored if one.chosen_as == one.key}
    for (_, origin, seed), group in groups.items():
        # A finalist's searched trial stands for its own fold.
        if (first := searched.get((origin, seed))) and _fold_of(first.record) not in map(_fold_of, (one.record for one in group)):
            group.insert(0, first)
    whole = [group for group in groups.values() if {_fold_of(one.record) for one in group} == folds]
    return {group[0].key: group for group in whole}, [one for one in scored if not any(one in group for group in whole)]


def _read_trials(
    groups: Mapping[Key, Sequence[_Found]], parts: Mapping[str, Sample], part: str, metric: Metric, damaged: list[str]
) -> dict[Key, Trial]:
    trials = {}
    for key, group in groups.items():
        try:
            trials[key] = _read_trial(group, parts, parts[part], metric)
        except DAMAGE as error:
            damaged.append(_damage(_name(group), error))
    return trials


def _replacements(
    trials: Mapping[Key, Trial], scored: Sequence[_Found], refits: Sequence[_Found], metric: Metric, damaged: list[str]
) -> tuple[dict[Key, Trial], set[Key], list[str]]:
    """Refits on all data in place of trials of the same configuration: these, the trials that they replace, and those that replace none.

    A refit was chosen by what its configuration did when a fold was kept back, and may be chosen by that again.
    """
    twins: dict[Key, Key] = {}
    for one in scored:
        if one.key in trials:
            twins.setdefault(one.chosen_as, one.key)
    replacing, replaced, alone = {}, set(), []
    for refit in refits:
        if not refit.record.has_model:
            continue
        if refit.chosen_as not in twins:
            alone.append(refit.name)
            continue
        try:
            task = _read_task(refit)
            _read_card(refit, task)
            task = task.of_kind(metric.target)
        except DAMAGE as error:
            damaged.append(_damage(refit.name, error))
            continue
        twin = twins[refit.chosen_as]
        replacing[refit.key] = replace(trials[twin], name=refit.name, record=refit.record, task=task, models=(refit.record.model,))
        replaced.add(twin)
    return replacing, replaced, alone


def _refuse_mixed(folders: Sequence[Folder], cards: Sequence[RunCard]) -> None:
    first, mistakes = cards[0], []
    for folder, card in zip(folders[1:], cards[1:], strict=True):
        pair = f"{folders[0].resolve().name} and {folder.resolve().name}"
        if card.split != first.split:
            mistakes.append(f"{pair} split the groups differently: their split hashes are {first.split} and {card.split}")
        if card.scheme != first.scheme:
            mistakes.append(f"{pair} name their classes differently: {_words(first.scheme)} and {_words(card.scheme)}")
    if mistakes:
        mistakes.append("Choose runs of the same data, cuts, hold-out, folds and seed; others would have trained on these hold-out images.")
    mistakes += [
        f"{folders[0].resolve().name} and {folder.resolve().name} were searched by different metrics: {first.metric} and {card.metric}. "
        "Choose runs of one metric (run/metric)."
        for folder, card in zip(folders[1:], cards[1:], strict=True)
        if card.metric != first.metric
    ]
    if mistakes:
        raise RunError("\n".join(mistakes))


def _read_parts(run: Folder, scheme: Scheme) -> dict[str, Sample]:
    """The images of each part named in split.csv: `holdout`, `fold 0`, ..."""
    import pandas as pd

    file = run / SPLIT
    try:
        table = pd.read_csv(io.BytesIO(file.read_bytes()), dtype={"photo": str, "class": str, "part": str}, keep_default_na=False)
        labels, tags, numbers = read_descriptions(table["class"].tolist(), scheme)
        rows = {part: np.flatnonzero(table["part"] == part) for part in table["part"].unique()}
        if HELD_OUT not in rows:
            raise ValueError("no image is held out")
        if len(rows) == 1:
            raise ValueError("all images are held out")
        images, groups, parts = (table[name].to_numpy() for name in ("photo", "person", "part"))
        whole = Sample(tuple(images), groups, labels, scheme, parts, tags, numbers)
    except DAMAGE as error:
        raise RunError(f"{file} cannot be used ({type(error).__name__}: {error}); restore it from a backup or leave the run out") from None
    return {part: whole.take(chosen) for part, chosen in rows.items()}


def _read_trial(group: Sequence[_Found], parts: Mapping[str, Sample], sample: Sample, metric: Metric) -> Trial:
    """The trial of one record, or of one record a fold; rows of its prediction as in the sample."""
    answers, ids = [], []
    tasks = [_read_task(one) for one in group]
    for one, task in zip(group, tasks, strict=True):
        predictions = read_predictions(one.record.folder)
        if one.record.has_model and (made := _read_card(one, task)).epoch != predictions.epoch:
            words = f"its weights are of epoch {made.epoch}, its predictions of {predictions.epoch}"
            raise ValueError(f"{words}; tuner.run --resume fixes that")
        own = parts[_fold_of(one.record)]
        answers.append(_aligned(predictions, task, own.ids, metric.target))
        ids += own.ids
    row = {image: index for index, image in enumerate(ids)}
    valid = np.concatenate(answers)[[row[image] for image in sample.ids]]
    kept = {_fold_of(one.record): one.record.model for one in group} if _can_predict(group) else {}
    task = tasks[0].of_kind(metric.target)
    return Trial(_name(group), group[0].record, task, valid, sample.score(metric, task.scheme, valid), tuple(kept.values()), kept)


def _can_predict(group: Sequence[_Found]) -> bool:
    return all(one.record.has_model for one in group)


def _name(group: Sequence[_Found]) -> str:
    first = group[0]
    if any(one.run != first.run for one in group):
        return first.name
    numbers = [str(one.record.number) for one in group]
    return first.name.removesuffix(numbers[0]) + "+".join(numbers)


def _read_task(one: _Found) -> Task:
    """Raises: ValueError when the record belongs to another split."""
    if one.record.result.split != one.card.split:
        raise ValueError(f"its split hash is {one.record.result.split}, the run's {one.card.split}")
    return read_task(one.record.config.task, one.card.scheme)


def _read_card(one: _Found, task: Task) -> Card:
    """What the record's weights say they are. Raises: one of DAMAGE when these belong to another trial or run."""
    record, card = one.record, one.card
    made = read_card(record.model)
    if (made.scheme, made.task, made.view) != (card.scheme, task, View.of(record.config.view)):
        raise ValueError(f"{MODEL} has other labels, another task or another view than the record")
    return made


def _aligned(predictions: Predictions, task: Task, ids: tuple[str, ...], kind: Kind) -> np.ndarray:
    """The answer to the targets of one kind, in the order of `ids`."""
    row = {name: index for index, name in enumerate(predictions.ids)}
    if row.keys() != set(ids):
        raise ValueError("valid.npz holds other images than the validation fold of split.csv")
    shapes = [(len(ids), scheme.classes) for scheme in task.head_schemes]
    if [head.shape for head in predictions.heads] != shapes or not all(np.isfinite(head).all() for head in predictions.heads):
        raise ValueError(f"valid.npz does not hold one finite array of each of the shapes {shapes}")
    for head, scheme in zip(predictions.heads, task.head_schemes, strict=True):
        if no_answer(head, scheme.kind).any():
            raise ValueError("valid.npz holds rows that are not probabilities")
    order = [row[name] for name in ids]
    return task.answer([head[order] for head in predictions.heads], kind)


def _joined(parts: Mapping[str, Sample], folds: set[str]) -> Sample:
    """The images of several folds."""
    samples = [parts[fold] for fold in sorted(folds)]
    ids = tuple(image for sample in samples for image in sample.ids)
    groups, labels, named = (np.concatenate([getattr(sample, name) for sample in samples]) for name in ("groups", "labels", "parts"))
    tags = [sample.tags for sample in samples if sample.tags is not None]
    numbers = [sample.numbers for sample in samples if sample.numbers is not None]
    others = (np.concatenate(found) if found else None for found in (tags, numbers))
    return Sample(ids, groups, labels, samples[0].scheme, named, *others)


def _merged(items: Sequence[LeftOut]) -> list[LeftOut]:
    """One item for each reason that names anything."""
    names: dict[str, list[str]] = {}
    for item in items:
        names.setdefault(item.reason, []).extend(item.names)
    return [LeftOut(reason, tuple(found)) for reason, found in names.items() if found]


def _damage(name: str, error: Exception) -> str:
    return f"{name} ({type(error).__name__}: {error})"


def _fold_of(record: Record) -> str:
    return f"fold {record.config.data.fold}"


def _names(folders: Sequence[Folder]) -> str:
    return ", ".join(folder.resolve().name for folder in folders)


def _words(scheme: Scheme) -> str:
    return "; ".join(f"{target.name}: {', '.join(target.values)}" for target in scheme.targets)
