"""Two models beside each other: the two most probable classes of each for every image, and who is right where they differ."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.evaluation.answer_files import read_answers, read_texts, unlike
from analysis.evaluation.disaggregated import FEW
from analysis.evaluation.steps import two_most_probable
from analysis.evaluation.uncertainty import Gain, gain_words, paired_gain
from analysis.members.trials import Runs, Sample, Trial, train_again
from analysis.mistakes.find import divergence
from trainables.data.names import shown, some
from trainables.metrics import METRICS
from trainables.metrics.evidence import evidence
from trainables.registry import ConfigError, Mistake, nearest

OPTION = "--side-by-side"
UNKNOWN = -1  # in place of a class that nobody knows


@dataclass(frozen=True, eq=False)
class Pair:
    """What two models answer for the same images; arrays are parallel, one entry an image."""

    names: tuple[str, str]
    classes: Sequence[str]
    images: Sequence[str]
    groups: np.ndarray  # (n,)
    truth: np.ndarray  # (n,) class ids, UNKNOWN where nobody knows
    answers: np.ndarray  # (2, n, classes)

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each model (2, n)."""
        return self.answers.argmax(axis=2)

    @property
    def differ(self) -> np.ndarray:
        """On which images (n,) the models predict different classes."""
        return self.predicted[0] != self.predicted[1]


@dataclass(frozen=True)
class Compared:
    """How two models differ."""

    names: tuple[str, str]
    images: int
    differ: int
    known: int  # images that they differ on and whose class is known
    right: tuple[int, int]  # of these, those that each model answers rightly
    gain: Gain | None  # in accuracy, of the first model over the second, on these; None of too few groups

    @property
    def neither(self) -> int:
        """Of the images that they differ on and whose class is known, those that no model answers rightly."""
        return self.known - sum(self.right)

    def plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return asdict(self) | {"neither": self.neither} | (self.gain.plain() if self.gain else {})

    def __str__(self) -> str:
        first, second = map(shown, self.names)
        found = f"{first} and {second} differ on {self.differ:,} of {self.images:,} images ({self.differ / self.images:.1%})."
        if not self.known:
            return f"{found} Who is right is not known." if self.differ else found
        labelled = "" if self.known == self.differ else f" {self.known:,} of them have a label."
        right = f" There {first} is right on {self.right[0]:,}, {second} on {self.right[1]:,}, neither on {self.neither:,}"
        of = f"too few groups for an interval (fewer than {FEW})"
        if self.gain:
            of = f"accuracy {gain_words(self.gain)}, 95 % CI, {'' if self.gain.significant else 'not '}significant"
        return f"{found}{labelled}{right}: {of}."


def table_of(pair: Pair) -> pd.DataFrame:
    """A row an image: its label, the two most probable classes of each model with their probabilities, whether the models agree, and who is
    right. Images that they differ on come first, those on which they are furthest apart at the top."""
    names = np.array([*pair.classes, ""], dtype=object)  # the last is that of UNKNOWN
    columns: dict[str, Any] = {"image": pair.images, "label": names[pair.truth]}
    for name, answer in zip(pair.names, pair.answers, strict=True):
        top, second, high, low, _ = two_most_probable(answer)
        columns |= {f"{name}: first": names[top], f"{name}: P(first)": high, f"{name}: second": names[second], f"{name}: P(second)": low}
    right = pair.predicted == pair.truth
    who = np.select([right.all(axis=0), right[0], right[1], pair.truth != UNKNOWN], ["both", *pair.names, "neither"], "")
    columns |= {"agree": np.where(pair.differ, "no", "yes"), "right": who}
    order = np.lexsort((-np.where(pair.differ, divergence(pair.answers), 0.0), ~pair.differ))
    return pd.DataFrame(columns).iloc[order]


def compare(pair: Pair, rng: np.random.Generator) -> Compared:
    """How two models differ; the generator draws the groups behind the interval of who is right more often."""
    rows = pair.differ & (pair.truth != UNKNOWN)
    right = (pair.predicted[:, rows] == pair.truth[rows]).sum(axis=1).tolist()
    gain = None
    if len(np.unique(pair.groups[rows])) >= FEW:
        first, second = (evidence(METRICS["accuracy"], pair.truth[rows], answer[rows], pair.groups[rows]) for answer in pair.answers)
        gain = paired_gain(first, second, rng)
    return Compared(pair.names, len(pair.images), int(pair.differ.sum()), int(rows.sum()), (right[0], right[1]), gain)


def two_trials(runs: Runs, names: tuple[str, str], *, predict: bool) -> list[Trial]:
    """The trials that are compared.

    Args:
        predict: whether they have to answer for images, which takes their weights.
    Raises: ConfigError naming all that is wrong with them.
    """
    trials, unkept = ({trial.name: trial for trial in some} for some in (runs.trials, runs.unkept))
    found, mistakes = trials | unkept, _same(names)
    for name in names:
        if name not in found:
            hint = nearest(name, list(found)) or f"; there are {', '.join(found)}"
            mistakes.append(Mistake(OPTION, f"there is no trial {name!r}{hint}"))
        elif name in unkept and predict:
            words = f"{name} has no weights any more (run/keep); train it again ({train_again([name])[0]}) and give that run, too"
            mistakes.append(Mistake(OPTION, words))
    if not mistakes:
        kinds = {name: found[name].task.scheme for name in names}
        targets = "; ".join(f"{name}: {', '.join(scheme.names)}" for name, scheme in kinds.items())
        if len(set(kinds.values())) > 1:
            mistakes.append(Mistake(OPTION, f"the trials predict different targets ({targets}); give two that predict the same"))
        elif runs.scheme.kind != "classes":
            mistakes.append(Mistake(OPTION, f"compares the most probable classes, and these predict {runs.scheme.kind} ({targets})"))
    if mistakes:
        raise ConfigError(mistakes)
    return [found[name] for name in names]


def pair_of_trials(trials: Sequence[Trial], sample: Sample, predicted: Sequence[np.ndarray]) -> Pair:
    """Two trials, which predict (images, classes) of their targets for labelled images."""
    scheme = trials[0].task.scheme
    names = trials[0].name, trials[1].name
    return Pair(names, scheme.class_names(), sample.ids, sample.groups, sample.truth(scheme), np.stack(predicted))


def pair_of_files(names: tuple[str, str], truth: Path | None) -> Pair:
    """Two tables of probabilities, with the labels of a third file where there is one: an image, its class, and its group if it has any.

    Raises: ConfigError naming everything that is wrong with the files.
    """
    mistakes, tables = _same(names), {}
    for name in names:
        table, wrong = read_answers(Path(name))
        if table is not None and len(table.columns) < 3:
            wrong = [*wrong, "it holds classes alone; two most probable ones take probabilities, one column a class"]
        mistakes += [Mistake(name, words) for words in wrong]
        if table is not None:
            tables[Path(name)] = table
    mistakes += unlike(tables)
    labels, wrong = _read_truth(truth) if truth else (None, [])
    mistakes += [Mistake(f"--truth {truth}", words) for words in wrong]
    if mistakes:
        raise ConfigError(mistakes)
    first, second = tables.values()
    image, columns = first.columns[0], list(first.columns[1:])
    images, classes = first[image].tolist(), [name[2:-1] if name.startswith("P(") else name for name in columns]
    answers = np.stack([one.set_index(image).loc[images, columns].to_numpy(dtype=float) for one in (first, second)])
    groups, known = np.arange(len(images)).astype(str).astype(object), np.full(len(images), UNKNOWN)
    if labels is not None:
        ids, wrong = _class_ids(labels.iloc[:, 1], classes)
        if absent := sorted(set(labels.index) - set(images)):
            wrong.append(f"{len(absent)} images are in no table: {some(absent)}")
        if wrong:
            raise ConfigError([Mistake(f"--truth {truth}", words) for words in wrong])
        place = {name: row for row, name in enumerate(images)}
        rows = [place[name] for name in labels.index]
        known[rows] = ids
        if len(labels.columns) > 2:
            groups[rows] = "group " + labels.iloc[:, 2].to_numpy()
    return Pair(names, classes, images, groups, known, answers)


def _same(names: tuple[str, str]) -> list[Mistake]:
    return [Mistake(OPTION, f"{names[0]} stands on both sides; give two different ones")] if names[0] == names[1] else []


def _read_truth(file: Path) -> tuple[pd.DataFrame | None, list[str]]:
    """A file's table, by image, and what is wrong with it."""
    table, wrong = read_texts(file)
    if table is None:
        return None, wrong
    if len(table.columns) not in (2, 3):
        return None, [f"it has {len(table.columns)} columns; give an image and its class, and in a third its group if it has any"]
    return table.set_index(table.columns[0], drop=False), wrong


def _class_ids(labels: pd.Series, classes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The class ids of labels, which are names of classes or, where none is called so, their numbers; and what is wrong with them."""
    known = {name: number for number, name in enumerate(classes)}
    if not known.keys() & set(labels):
        known = {str(number): number for number in range(len(classes))}
    if strange := sorted(set(labels) - known.keys()):
        return np.array([]), [f"these are no classes of the tables: {some(strange)}; there are {some(list(classes))}"]
    return labels.map(known).to_numpy(), []
