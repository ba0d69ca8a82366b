"""Labelled images as records of arrays. What cannot be used is counted and named in `left_out`; nothing is guessed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from search_spaces.errors import UserError
from trainables.data.names import shown, some
from trainables.data.targets import Scheme, Target


class DataError(UserError, ValueError):
    """Data that cannot be used; the text names every reason found and how to fix it."""


class ImageError(UserError, ValueError):
    """An image that cannot be read from its view or augmented; the text says which, where and why."""


TRAIN, VALID, TEST = range(3)  # the parts of a split that the data brings with it


@dataclass(frozen=True)
class LeftOut:
    """One kind of thing that was not used, and its names."""

    reason: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.names)} {self.reason}: {some(self.names)}"


@dataclass(frozen=True)
class Images:
    """Labelled images; arrays are parallel, one entry an image."""

    root: Path  # ids are paths below this folder
    ids: tuple[str, ...]
    groups: np.ndarray  # (n,) index of the group, which no split separates
    labels: np.ndarray  # (n, Classes) class ids in the scheme's order
    scheme: Scheme
    left_out: tuple[LeftOut, ...] = ()
    numbers: np.ndarray | None = None  # (n,) float32: the scheme's Number, or what one of its Classes is cut from
    names: tuple[str, ...] = ()  # (n,) of the groups, where they have any; two data sets that name one alike mean the same group
    ties: tuple[tuple[int, ...], ...] = ()  # further groups that no split separates, by index
    tags: np.ndarray | None = None  # (n, tags) bool, where the scheme has Tags
    given: np.ndarray | None = None  # (n,) TRAIN, VALID or TEST, where the data itself says so
    read_as: tuple[str, ...] = ()  # how the data was understood, for people

    @classmethod
    def without_labels(cls, root: Path, ids: Sequence[str], scheme: Scheme) -> Self:
        """Images, each a group by itself, of which nothing is known: what stands in place of labels says nothing."""
        count = len(ids)
        return cls(
            root,
            tuple(ids),
            np.arange(count),
            np.zeros((count, len(scheme.of_kind("classes").names)), dtype=int),
            scheme,
            tags=np.zeros((count, scheme.of_kind("tags").classes), dtype=bool) if "tags" in scheme.kinds else None,
            numbers=np.full(count, np.nan, dtype=np.float32) if "number" in scheme.kinds else None,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def truth(self, part: Scheme) -> np.ndarray:
        """What is true of the targets of a part of the scheme, which are of one kind: joint classes (n,), tags (n, tags), numbers (n,)."""
        return truth_of(self.scheme, part, self.labels, self.tags, self.numbers)

    def strata(self) -> np.ndarray:
        """What every part of a split should have its share of (n,): `strata_of` the first kind of target that there is."""
        return strata_of(self.truth(self.scheme.of_kind(self.scheme.kinds[0])))

    def described(self) -> list[str]:
        """What is true of each image, in words that `read_descriptions` takes back: the name of its joint class, or all targets as JSON."""
        if self.scheme.kinds == ("classes",):
            names = self.scheme.class_names()
            return [names[one] for one in self.scheme.joint(self.labels).tolist()]
        found: list[dict[str, object]] = [{} for _ in self.ids]
        for target in self.scheme.targets:
            own = self.truth(self.scheme.part((target.name,)))
            for row, one in zip(found, own.tolist(), strict=True):
                row[target.name] = _worded(target, one)
        return [json.dumps(row, ensure_ascii=False) for row in found]

    def count_lines(self, most: int = 8) -> list[str]:
        """For each target a line that says how many images have what; of many classes or tags, those of most and of fewest images."""
        return count_lines(self.scheme, self.truth, most)

    def without(self, bad: dict[str, str]) -> "Images":
        """The images but those in `bad` (id -> why), which join `left_out`."""
        if not bad:
            return self
        found = LeftOut("images cannot be decoded", tuple(f"{name} ({why})" for name, why in bad.items()))
        kept = self.take(np.flatnonzero([name not in bad for name in self.ids]))
        return replace(kept, left_out=(*self.left_out, found))

    def take(self, positions: np.ndarray) -> "Images":
        """The images at these positions, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[position] for position in positions.tolist()),
            groups=self.groups[positions],
            labels=self.labels[positions],
            numbers=None if self.numbers is None else self.numbers[positions],
            tags=None if self.tags is None else self.tags[positions],
            names=tuple(self.names[position] for position in positions.tolist()) if self.names else (),
            given=None if self.given is None else self.given[positions],
        )


def count_lines(scheme: Scheme, truth: Callable[[Scheme], np.ndarray], most: int = 8) -> list[str]:
    """For each target a line that says how many images have what; of many classes or tags, those of most and of fewest images.

    Args:
        truth: what is true of the images, of a part of the scheme.
    """
    lines = []
    for target in scheme.targets:
        own, name = truth(scheme.part((target.name,))), shown(target.name)
        if target.kind == "number":
            low, middle, high = np.quantile(own, [0, 0.5, 1])
            lines.append(f"{name} (a number): from {low:g} to {high:g}, half of the images up to {middle:g}")
        elif target.kind == "tags":
            counts, bare = own.sum(axis=0), int((~own.any(axis=1)).sum())
            lines.append(f"{name} ({len(counts)} tags): {_counted(target.values, counts, most)}; without any {bare:,}")
        else:
            counts = np.bincount(own, minlength=len(target.values))
            lines.append(f"{name} ({len(counts)} classes): {_counted(target.values, counts, most)}")
    return lines


def _counted(values: Sequence[str], counts: np.ndarray, most: int) -> str:
    named = [f"{shown(value)} {count:,}" for value, count in zip(values, counts.tolist(), strict=True)]
    if len(named) > most:
        order = np.argsort(-counts, kind="stable").tolist()
        first, last = ([named[place] for place in part] for part in (order[: most - 3], order[-2:]))
        named = [*first, f"... {len(named) - most + 1} others ...", *last]
    return ", ".join(named)


def truth_of(scheme: Scheme, part: Scheme, labels: np.ndarray, tags: np.ndarray | None, numbers: np.ndarray | None) -> np.ndarray:
    """What is true of the targets of a part of a scheme, which are of one kind, as `Images` holds it. Raises: ValueError where it is not
    there."""
    if part.kind == "classes":
        return scheme.of_kind("classes").joint_of(part.names, labels)
    found = tags if part.kind == "tags" else numbers
    if found is None:
        raise ValueError(f"no {part.kind} of the images are known")
    return found


def strata_of(truth: np.ndarray) -> np.ndarray:
    """What every part of a split should have its share of (n,): joint classes, the rarest tag of each image, a fifth of the numbers."""
    if truth.ndim == 2:
        rarest = np.argsort(truth.sum(axis=0), kind="stable")
        ranked = truth[:, rarest].astype(bool)
        return np.where(ranked.any(axis=1), ranked.argmax(axis=1), truth.shape[1])
    if np.issubdtype(truth.dtype, np.floating):
        return np.digitize(truth, np.quantile(truth, [0.2, 0.4, 0.6, 0.8]))
    return truth


def read_descriptions(texts: Sequence[str], scheme: Scheme) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """What `Images.described` put in words: class ids (n, Classes), and tags (n, tags) and numbers (n,) where the scheme has such.

    Raises: ValueError, KeyError, TypeError for what it did not write.
    """
    if scheme.kinds == ("classes",):
        place = {name: index for index, name in enumerate(scheme.class_names())}
        return scheme.split(np.array([place[text] for text in texts])), None, None
    found = [json.loads(text) for text in texts]
    labels = [[target.values.index(row[target.name]) for row in found] for target in scheme.of_kind("classes").targets]
    tags = [[value in row[target.name] for row in found] for target in scheme.of_kind("tags").targets for value in target.values]
    numbers = [[float(row[target.name]) for row in found] for target in scheme.of_kind("number").targets]
    return (
        np.array(labels, dtype=np.int64).reshape(-1, len(found)).T,
        np.array(tags, dtype=bool).T if tags else None,
        np.array(numbers[0]) if numbers else None,
    )


def _worded(target: Target, truth: Any) -> object:
    if target.kind == "tags":
        return [value for value, there in zip(target.values, truth, strict=True) if there]
    return target.values[truth] if target.kind == "classes" else truth


@dataclass(frozen=True)
class Unlabelled:
    """Images to predict, in the order in which the answer must be written."""

    root: Path
    ids: tuple[str, ...]
    columns: tuple[str, ...] = ("ImageID", "ans")  # of the answer: the image's, then the class's, or one for each class
    names: tuple[str, ...] = ()  # (n,) of the images in the answer; empty: their ids
    by_name: bool = False  # whether the answer gives classes by their names, not by their numbers
