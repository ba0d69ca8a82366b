"""Reading runs: the trials that can stand in an ensemble, and the photos that choose and score it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from trainables.checkpoint import Card
from trainables.data.labels import Scheme, Task, read_task
from trainables.data.photos import LeftOut
from trainables.data.splits import NOBODY
from trainables.data.views import View
from trainables.metrics import confusion, macro_f1
from trainables.record import (
    DAMAGE,
    MODEL,
    RUNS,
    SPLIT,
    Predictions,
    Record,
    RunCard,
    RunError,
    list_folders,
    read_predictions,
    read_record,
    read_run,
    searched_run,
)
from trainables.storage import Folder, local_file

Key = tuple[str, int]  # a run's folder, and a trial's number


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled photos of one side of the split; arrays are parallel, one entry a photo."""

    ids: tuple[str, ...]
    people: np.ndarray  # (n,)
    labels: np.ndarray  # (n, attributes) class ids in the scheme's order
    scheme: Scheme

    def classes(self, part: Scheme) -> np.ndarray:
        """True joint classes (n,) of a scheme that has some of the attributes."""
        return part.joint(self.labels[:, self.scheme.columns(part.names)])

    def macro_f1(self, part: Scheme, probabilities: np.ndarray) -> float:
        """Macro F1 over all classes of `part`, of the likeliest classes of probabilities (n, classes)."""
        return float(macro_f1(confusion(self.classes(part), probabilities.argmax(axis=1), part.classes)))


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial that can predict."""

    run: str
    record: Record
    task: Task
    valid: np.ndarray  # (n, classes of the task's scheme), float64; rows as in Runs.valid
    score: float  # macro F1 on validation

    def __str__(self) -> str:
        return f"{self.run}/{self.record.number}"

    @property
    def model(self) -> Folder:
        return self.record.model


@dataclass(frozen=True)
class Runs:
    """Runs that were split alike, so that their trials can be compared and combined."""

    folders: tuple[Folder, ...]
    cards: tuple[RunCard, ...]
    valid: Sample  # the photos that choose
    holdout: Sample  # the photos that score
    trials: tuple[Trial, ...]  # run by run, by number
    left_out: tuple[LeftOut, ...]

    @property
    def scheme(self) -> Scheme:
        return self.cards[0].scheme


def newest_run(runs: Path = RUNS) -> Path:
    """The run begun last, of those in a local folder. Raises: RunError when there is none."""
    cards = sorted(runs.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    if not cards:
        raise RunError(f"there is no run in {runs}/ yet; python -m tuner.run makes one")
    return cards[-1].parent


def load_runs(folders: Sequence[Folder]) -> Runs:
    """The trials that have a validation prediction and weights, however they ended; the others are named in `left_out`.

    All are validated on one fold, that of the first trial. A refit on all data, which nobody validated, takes the place of the searched
    trial it was chosen as, with that trial's validation prediction, where that run is among the folders too.

    Raises: RunError when runs differ in split or scheme, when run.json or split.csv is damaged, and when no trial can be used.
    """
    cards = [read_run(folder) for folder in folders]
    _refuse_mixed(folders, cards)
    sides = _read_sides(folders[0], cards[0].scheme)
    trials: dict[Key, Trial] = {}
    damaged, bare, elsewhere, refits = [], [], [], []
    side = None
    for folder, card in zip(folders, cards, strict=True):
        places = [place for place in list_folders(folder / "trials") if place.name.isdigit()]
        for place in sorted(places, key=lambda place: int(place.name)):
            name = f"{folder.resolve().name}/{place.name}"
            try:
                record = read_record(place)
                if not (record.best and record.has_model and (place / "valid.npz").is_file()):
                    bare.append(f"{name} ({record.result.state})")
                elif record.config.data.fold == NOBODY:
                    refits.append((folder, card, record))
                elif (side := side or _side(record)) != _side(record):
                    elsewhere.append(f"{name} ({_side(record)})")
                else:
                    trials[_key(folder, record.number)] = _read_trial(folder, card, record, sides)
            except DAMAGE as error:
                damaged.append(f"{name} ({type(error).__name__}: {error})")
    standing, replaced, alone = _stand_ins(trials, refits, damaged)
    left_out = [
        LeftOut("damaged records", tuple(damaged)),
        LeftOut("trials without prediction or weights", tuple(bare)),
        LeftOut(f"trials validated on another fold than {side}: they are for out-of-fold scores", tuple(elsewhere)),
        LeftOut("trials that nobody validated: give the run that they were chosen from too (--run), to choose by", tuple(alone)),
        LeftOut("searched trials: their refits on all data take their place", tuple(str(trials[key]) for key in replaced)),
    ]
    left_out = [item for item in left_out if item.names]
    order = [_key(folder, 0)[0] for folder in folders]
    kept = {key: trial for key, trial in trials.items() if key not in replaced} | standing
    chosen = [kept[key] for key in sorted(kept, key=lambda key: (order.index(key[0]), key[1]))]
    if not chosen:
        found = "; ".join(map(str, left_out)) or "there are no trials"
        mend = "" if alone else " Go on until one has reached the end of an epoch: python -m tuner.run --resume."
        raise RunError(f"{_names(folders)}: no trial has both a validation prediction and weights ({found}).{mend}")
    return Runs(tuple(folders), tuple(cards), sides[side], sides["holdout"], tuple(chosen), tuple(left_out))


def _key(folder: Folder, number: int) -> Key:
    return str(folder.resolve()), number


def _stand_ins(
    trials: Mapping[Key, Trial], refits: Sequence[tuple[Folder, RunCard, Record]], damaged: list[str]
) -> tuple[dict[Key, Trial], set[Key], list[str]]:
    """Refits on all data in place of searched trials: these, the trials that they replace, and those that replace none.

    A refit was chosen by what its configuration did when a fold was kept back, and may be chosen by that again.
    """
    standing, replaced, alone = {}, set(), []
    for folder, card, record in refits:
        name = f"{folder.resolve().name}/{record.number}"
        key = _key(searched_run(folder, card), card.origins[record.number].trial)
        if key not in trials:
            alone.append(name)
            continue
        try:
            task, _ = _read_card(card, record)
        except DAMAGE as error:
            damaged.append(f"{name} ({type(error).__name__}: {error})")
            continue
        twin = trials[key]
        standing[_key(folder, record.number)] = replace(twin, run=folder.resolve().name, record=record, task=task)
        replaced.add(key)
    return standing, replaced, alone


def _refuse_mixed(folders: Sequence[Folder], cards: Sequence[RunCard]) -> None:
    first, mistakes = cards[0], []
    for folder, card in zip(folders[1:], cards[1:], strict=True):
        pair = f"{folders[0].resolve().name} and {folder.resolve().name}"
        if card.split != first.split:
            mistakes.append(f"{pair} split the people differently: their split hashes are {first.split} and {card.split}")
        if card.scheme != first.scheme:
            mistakes.append(f"{pair} name their classes differently: {_words(first.scheme)} and {_words(card.scheme)}")
    if mistakes:
        mend = "Choose runs of the same data, cuts, hold-out, folds and seed; others would have trained on these hold-out photos."
        raise RunError("\n".join([*mistakes, mend]))


def _read_sides(run: Folder, scheme: Scheme) -> dict[str, Sample]:
    """The photos of each part named in split.csv: `holdout`, `fold 0`, ..."""
    file = run / SPLIT
    names = scheme.class_names()
    try:
        table = pd.read_csv(io.BytesIO(file.read_bytes()), dtype={"photo": str, "class": str, "part": str}, keep_default_na=False)
        classes = np.array([names.index(name) for name in table["class"]])
        rows = {part: np.flatnonzero(table["part"] == part) for part in table["part"].unique()}
        if "holdout" not in rows:
            raise ValueError("nobody is held out")
        photos, people, labels = table["photo"].to_numpy(), table["person"].to_numpy(), scheme.split(classes)
    except DAMAGE as error:
        raise RunError(f"{file} cannot be used ({type(error).__name__}: {error}); bring a copy back or leave the run out") from None
    return {part: Sample(tuple(photos[chosen]), people[chosen], labels[chosen], scheme) for part, chosen in rows.items()}


def _read_trial(folder: Folder, card: RunCard, record: Record, sides: dict[str, Sample]) -> Trial:
    task, made = _read_card(card, record)
    sample = sides[_side(record)]
    predictions = read_predictions(record.folder)
    if predictions.epoch != made.epoch:
        raise ValueError(f"its weights are of epoch {made.epoch}, its predictions of {predictions.epoch}; tuner.run --resume mends that")
    valid = _aligned(predictions, task, sample.ids)
    return Trial(folder.resolve().name, record, task, valid, sample.macro_f1(task.scheme, valid))


def _read_card(card: RunCard, record: Record) -> tuple[Task, Card]:
    """The trial's task, and what its weights say they are. Raises: one of DAMAGE when these belong to another trial or run."""
    if record.result.split != card.split:
        raise ValueError(f"its split hash is {record.result.split}, the run's {card.split}")
    with local_file(record.model) as file, safe_open(file, framework="np") as reader:
        made = Card.read(reader.metadata()["card"])
    task = read_task(record.config.task, card.scheme)
    if (made.scheme, made.task, made.view) != (card.scheme, task, View.of(record.config.view)):
        raise ValueError(f"{MODEL} has other labels, another task or another view than the record")
    return task, made


def _aligned(predictions: Predictions, task: Task, ids: tuple[str, ...]) -> np.ndarray:
    """Joint probabilities in the order of `ids`."""
    row = {name: index for index, name in enumerate(predictions.ids)}
    if row.keys() != set(ids):
        raise ValueError("valid.npz holds other photos than the validation fold of split.csv")
    shapes = [(len(ids), scheme.classes) for scheme in task.head_schemes]
    if [head.shape for head in predictions.heads] != shapes or not all(np.isfinite(head).all() for head in predictions.heads):
        raise ValueError(f"valid.npz does not hold one finite array of each of the shapes {shapes}")
    order = [row[name] for name in ids]
    return task.joint_probabilities([head[order] for head in predictions.heads])


def _side(record: Record) -> str:
    return f"fold {record.config.data.fold}"


def _names(folders: Sequence[Folder]) -> str:
    return ", ".join(folder.resolve().name for folder in folders)


def _words(scheme: Scheme) -> str:
    return "; ".join(f"{attribute.name}: {', '.join(attribute.values)}" for attribute in scheme.attributes)
