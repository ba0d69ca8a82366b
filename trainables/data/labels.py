"""The label scheme: ordered attributes, the joint class as their mixed-radix number, and tasks as lists of heads.

The first attribute is the most significant digit: of mask, gender and age with 3, 2 and 3 values it is 6 * mask + 3 * gender + age.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any

import numpy as np

from trainables.data.names import shown
from trainables.registry import ConfigError, Mistake

Array = Any  # of numpy, or a tensor of torch


@dataclass(frozen=True)
class Attribute:
    """One thing to predict."""

    name: str
    values: tuple[str, ...]  # the names of its classes, in the order of their ids
    cuts: tuple[int, ...] = ()  # first number of each class but the lowest, where they are cut from a number

    @classmethod
    def banded(cls, name: str, cuts: tuple[int, ...]) -> "Attribute":
        """The bands that cuts make of a number, such as <30, 30-59, >=60."""
        between = [f"{low}-{high - 1}" for low, high in zip(cuts, cuts[1:], strict=False)]
        return cls(name, (f"<{cuts[0]}", *between, f">={cuts[-1]}"), cuts)

    def plain(self) -> tuple:
        """The attribute as JSON knows it; `Attribute.read` takes it back."""
        return self.name, self.values, self.cuts

    @classmethod
    def read(cls, plain: Sequence) -> "Attribute":
        """The inverse of `plain`."""
        name, values, *cuts = plain
        return cls(name, tuple(values), *map(tuple, cuts))


@dataclass(frozen=True)
class Scheme:
    """The ordered attributes; the first is the most significant digit of the joint class."""

    attributes: tuple[Attribute, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(attribute.name for attribute in self.attributes)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(attribute.values) for attribute in self.attributes)

    @property
    def classes(self) -> int:
        return math.prod(self.sizes)

    @property
    def cut(self) -> Attribute | None:
        """The attribute that is cut from a number."""
        return next((attribute for attribute in self.attributes if attribute.cuts), None)

    def joint(self, labels: np.ndarray) -> np.ndarray:
        """Joint classes (n,) of attribute ids (n, attributes)."""
        return np.ravel_multi_index(tuple(np.asarray(labels).T), self.sizes)

    def joint_of(self, names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
        """Joint classes (n,) of some of the attributes, in this scheme's order, of attribute ids (n, attributes)."""
        part = self.part(names)
        return part.joint(labels[:, self.columns(part.names)])

    def split(self, classes: np.ndarray) -> np.ndarray:
        """Attribute ids (n, attributes) of joint classes (n,): the inverse of `joint`."""
        return np.stack(np.unravel_index(np.asarray(classes), self.sizes), axis=-1)

    def class_names(self) -> list[str]:
        """One readable name per joint class, such as `worn, female, 30-59`."""
        return [
            ", ".join(attribute.values[value] for attribute, value in zip(self.attributes, row, strict=True))
            for row in self.split(np.arange(self.classes))
        ]

    def absent(self, classes: np.ndarray) -> list[str]:
        """Names of the joint classes that are not among the given ones (n,); each counts as 0 in macro F1."""
        present = set(classes.tolist())
        return [name for number, name in enumerate(self.class_names()) if number not in present]

    def count_lines(self, labels: np.ndarray, most: int = 8) -> list[str]:
        """For each attribute a line with the number of images of each value, from ids (n, attributes); of many, the most and the least."""
        lines = []
        for attribute, column in zip(self.attributes, np.asarray(labels).T, strict=True):
            counts = np.bincount(column, minlength=len(attribute.values)).tolist()
            named = [f"{shown(value)} {count:,}" for value, count in zip(attribute.values, counts, strict=True)]
            if len(named) > most:
                order = sorted(range(len(named)), key=lambda place: -counts[place])
                ends = [[named[place] for place in part] for part in (order[: most - 3], order[-2:])]
                named = [*ends[0], f"... {len(named) - most + 1} others ...", *ends[1]]
            lines.append(f"{shown(attribute.name)} ({len(attribute.values)} classes): {', '.join(named)}")
        return lines

    def part(self, names: tuple[str, ...]) -> "Scheme":
        """The scheme of some of the attributes, in this scheme's order."""
        return Scheme(tuple(attribute for attribute in self.attributes if attribute.name in names))

    def marginal(self, names: tuple[str, ...], probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes of the part) of some of the attributes, from joint ones (n, classes)."""
        others = tuple(1 + index for index, name in enumerate(self.names) if name not in names)
        # torch would sum over all axes where numpy is told of none.
        return probabilities.reshape(-1, *self.sizes).sum(axis=others).reshape(-1, self.part(names).classes) if others else probabilities

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Columns of a label array (n, attributes) that hold these attributes, in the given order."""
        return [self.names.index(name) for name in names]


@dataclass(frozen=True)
class Task:
    """What a trial predicts: each head is one softmax over the product of its attributes."""

    scheme: Scheme  # the attributes that some head covers, in the data's order
    heads: tuple[tuple[str, ...], ...]  # attribute names per head

    @property
    def head_schemes(self) -> tuple[Scheme, ...]:
        return tuple(self.scheme.part(head) for head in self.heads)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Class ids (n, heads), one column per head, of attribute ids (n, attributes of this task's scheme)."""
        return np.stack([self.scheme.joint_of(head, labels) for head in self.heads], axis=-1)

    def joint_probabilities(self, heads: list[np.ndarray]) -> np.ndarray:
        """Probabilities (n, classes of the scheme) from one (n, classes) array per head, taking heads as independent."""
        return compose(self.scheme, [(part, head.astype(np.float64)) for part, head in zip(self.head_schemes, heads, strict=True)])


def compose(scheme: Scheme, parts: list[tuple[Scheme, Array]]) -> Array:
    """Joint probabilities (n, classes) of a scheme from parts that cover each of its attributes once.

    Args:
        parts: (scheme of some attributes, probabilities (n, classes of that scheme)), taken as independent; arrays, or tensors of torch.
    """
    shapes = ([size if name in part.names else 1 for name, size in zip(scheme.names, scheme.sizes, strict=True)] for part, _ in parts)
    spread = (probabilities.reshape(-1, *shape) for (_, probabilities), shape in zip(parts, shapes, strict=True))
    return reduce(mul, spread).reshape(-1, scheme.classes)


def read_task(task: str | list[list[str]], scheme: Scheme) -> Task:
    """The heads that `task` asks for: joint, heads, one attribute's name, or a list of lists of attributes.

    Raises: ConfigError for an unknown or repeated attribute.
    """
    if task == "joint":
        heads = [list(scheme.names)]
    elif task == "heads":
        heads = [[name] for name in scheme.names]
    else:
        heads = [[task]] if isinstance(task, str) else [list(head) for head in task]
    named = [name for head in heads for name in head]
    known = list(scheme.names)
    mistakes = [
        Mistake("task", f"{name!r} is not an attribute; there are {', '.join(known)}, and joint and heads for all of them")
        for name in named
        if name not in known
    ]
    mistakes += [Mistake("task", f"{name} is predicted by two heads; name it once") for name in known if named.count(name) > 1]
    if not named or not all(heads):
        mistakes.append(Mistake("task", "a head without attributes predicts nothing; name at least one"))
    if mistakes:
        raise ConfigError(mistakes)
    # Attributes of a head are kept in the data's order, so one product has one numbering.
    ordered = tuple(tuple(name for name in known if name in head) for head in heads)
    return Task(scheme.part(tuple(named)), ordered)
