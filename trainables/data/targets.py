"""What is predicted: targets of three kinds, the joint class of several Classes, and tasks as lists of heads.

Classes are one of several, Tags any of several, a Number is a number. The joint class is the mixed-radix number of all Classes, the first
the most significant digit: of mask, gender and age with 3, 2 and 3 values it is 6 * mask + 3 * gender + age.

Truth and answer are arrays: of Classes true joint classes (n,) and probabilities (n, classes); of Tags whether each is there (n, tags) and
probabilities (n, tags); of a Number the numbers (n,) and predicted ones (n, 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from trainables.registry import ConfigError, Mistake

Array = Any  # of numpy, or a tensor of torch
Kind = Literal["classes", "tags", "number"]
KINDS: tuple[Kind, ...] = ("classes", "tags", "number")


@dataclass(frozen=True)
class Classes:
    """One of several values."""

    name: str
    values: tuple[str, ...]  # the names of its classes, in the order of their ids
    cuts: tuple[int, ...] = ()  # first number of each class but the lowest, where they are cut from a number
    kind: Literal["classes"] = "classes"

    @classmethod
    def banded(cls, name: str, cuts: tuple[int, ...]) -> "Classes":
        """The bands that cuts make of a number, such as <30, 30-59, >=60."""
        between = [f"{low}-{high - 1}" for low, high in zip(cuts, cuts[1:], strict=False)]
        return cls(name, (f"<{cuts[0]}", *between, f">={cuts[-1]}"), cuts)

    def plain(self) -> tuple:
        """The target as JSON knows it; `read_target` takes it back."""
        return self.name, self.values, self.cuts


@dataclass(frozen=True)
class Tags:
    """Any of several values, none of them too."""

    name: str
    values: tuple[str, ...]
    kind: Literal["tags"] = "tags"
    cuts: ClassVar[tuple[int, ...]] = ()

    def plain(self) -> tuple:
        """The target as JSON knows it; `read_target` takes it back."""
        return self.name, self.values, (), self.kind


@dataclass(frozen=True)
class Number:
    """A real number."""

    name: str
    kind: Literal["number"] = "number"
    cuts: ClassVar[tuple[int, ...]] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """The one column of what is predicted."""
        return (self.name,)

    def plain(self) -> tuple:
        """The target as JSON knows it; `read_target` takes it back."""
        return self.name, (), (), self.kind


Target = Classes | Tags | Number


def read_target(plain: Sequence) -> Target:
    """The inverse of `plain`. Raises: ValueError for what is no target."""
    name, values = plain[:2]
    cuts = plain[2] if len(plain) > 2 else ()
    kind = plain[3] if len(plain) > 3 else "classes"
    if kind == "tags":
        return Tags(name, tuple(values))
    if kind == "number":
        return Number(name)
    if kind != "classes":
        raise ValueError(f"{name!r} is of the unknown kind {kind!r}")
    return Classes(name, tuple(values), tuple(cuts))


@dataclass(frozen=True)
class Scheme:
    """The ordered targets. What is of one kind has an answer of one array; the first of several Classes is the most significant digit of
    the joint class."""

    targets: Annotated[tuple[Target, ...], Field(alias="attributes")]  # the name that files have had from the first one on

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that there are, in a fixed order."""
        return tuple(kind for kind in KINDS if any(target.kind == kind for target in self.targets))

    @property
    def kind(self) -> Kind:
        """The kind of all its targets. Raises: ValueError where there are several."""
        (kind,) = self.kinds or ("classes",)
        return kind

    def of_kind(self, kind: Kind) -> "Scheme":
        """The scheme of the targets of one kind."""
        return Scheme(tuple(target for target in self.targets if target.kind == kind))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(target.values) for target in self.targets)

    @property
    def classes(self) -> int:
        """Columns of an answer to its targets, which are of one kind: joint classes, tags, or 1."""
        return math.prod(self.sizes) if self.kind == "classes" else sum(self.sizes)

    @property
    def cut(self) -> Target | None:
        """The target that is cut from a number."""
        return next((target for target in self.targets if target.cuts), None)

    def joint(self, labels: np.ndarray) -> np.ndarray:
        """Joint classes (n,) of class ids (n, Classes)."""
        sizes = self.of_kind("classes").sizes
        return np.ravel_multi_index(tuple(np.asarray(labels).T), sizes) if sizes else np.zeros(len(labels), dtype=np.int64)

    def joint_of(self, names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
        """Joint classes (n,) of some of the Classes, in this scheme's order, of class ids (n, Classes)."""
        part = self.part(names)
        return part.joint(labels[:, self.columns(part.names)])

    def split(self, classes: np.ndarray) -> np.ndarray:
        """Class ids (n, Classes) of joint classes (n,): the inverse of `joint`."""
        return np.stack(np.unravel_index(np.asarray(classes), self.sizes), axis=-1)

    def class_names(self) -> list[str]:
        """One readable name per column of an answer: of a joint class such as `worn, female, 30-59`, of a tag, or of the number."""
        if self.kind != "classes":
            return [value for target in self.targets for value in target.values]
        return [
            ", ".join(target.values[value] for target, value in zip(self.targets, row, strict=True))
            for row in self.split(np.arange(self.classes))
        ]

    def absent(self, classes: np.ndarray) -> list[str]:
        """Names of the joint classes that are not among the given ones (n,); each counts as 0 in macro F1."""
        present = set(classes.tolist())
        return [name for number, name in enumerate(self.class_names()) if number not in present]

    def part(self, names: tuple[str, ...]) -> "Scheme":
        """The scheme of some of the targets, in this scheme's order."""
        return Scheme(tuple(target for target in self.targets if target.name in names))

    def marginal(self, names: tuple[str, ...], probabilities: np.ndarray) -> np.ndarray:
        """The answer (n, classes of the part) to some of the targets, which are of one kind, from that to all (n, classes)."""
        if self.kind != "classes":
            return probabilities
        others = tuple(1 + index for index, name in enumerate(self.names) if name not in names)
        # torch would sum over all axes where numpy is told of none.
        return probabilities.reshape(-1, *self.sizes).sum(axis=others).reshape(-1, self.part(names).classes) if others else probabilities

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Columns of an array of class ids (n, Classes) that hold these targets, in the given order."""
        known = self.of_kind("classes").names
        return [known.index(name) for name in names]


TOLERANCE = 1e-3  # of the sum of an image's probabilities, which are kept in single precision


def no_answer(answer: np.ndarray, kind: Kind) -> np.ndarray:
    """Whether the rows (n,) of an answer (n, columns) are none: not finite, or no probabilities where they should be."""
    # Written so that what is not a number is wrong, too.
    if kind == "number":
        right = np.isfinite(answer).all(axis=1)
    elif kind == "tags":
        right = ((answer >= 0) & (answer <= 1 + TOLERANCE)).all(axis=1)
    else:
        right = (answer >= 0).all(axis=1) & (np.abs(answer.sum(axis=1) - 1) <= TOLERANCE)
    return np.logical_not(right)


@dataclass(frozen=True)
class Task:
    """What a trial predicts: each head is one softmax over the product of its Classes, a sigmoid per tag, or a number."""

    scheme: Scheme  # the targets that some head covers, in the data's order
    heads: tuple[tuple[str, ...], ...]  # names of targets per head

    @property
    def head_schemes(self) -> tuple[Scheme, ...]:
        return tuple(self.scheme.part(head) for head in self.heads)

    def of_kind(self, kind: Kind) -> "Task":
        """The task of the heads of one kind."""
        heads = tuple(names for names, part in zip(self.heads, self.head_schemes, strict=True) if part.kind == kind)
        return Task(self.scheme.of_kind(kind), heads)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Class ids (n, heads), one column per head, of class ids (n, Classes of this task's scheme), where all heads are of Classes."""
        return np.stack([self.scheme.joint_of(head, labels) for head in self.heads], axis=-1)

    def answer(self, heads: Sequence[Array], kind: Kind = "classes") -> Array:
        """The answer (n, columns) to all targets of one kind, float64, from one array a head, taking heads as independent."""
        parts = [(part, head.astype(np.float64)) for part, head in zip(self.head_schemes, heads, strict=True) if part.kind == kind]
        return compose(self.scheme.of_kind(kind), parts)


def compose(scheme: Scheme, parts: Sequence[tuple[Scheme, Array]]) -> Array:
    """The answer (n, columns) to the targets of a scheme, which are of one kind, from parts that cover each of them once.

    Args:
        parts: (scheme of some targets, answer to them), taken as independent; arrays, or tensors of torch.
    """
    if scheme.kind != "classes":
        ((_, answer),) = parts
        return answer
    shapes = ([size if name in part.names else 1 for name, size in zip(scheme.names, scheme.sizes, strict=True)] for part, _ in parts)
    spread = (probabilities.reshape(-1, *shape) for (_, probabilities), shape in zip(parts, shapes, strict=True))
    return reduce(mul, spread).reshape(-1, scheme.classes)


def read_task(task: str | list[list[str]], scheme: Scheme) -> Task:
    """The heads that `task` asks for: joint (one for all Classes), heads (one a target), one target's name, or a list of lists of targets.

    Raises: ConfigError for an unknown or repeated target, and for a head of targets of several kinds.
    """
    if task == "joint":
        heads = [list(scheme.of_kind(kind).names) for kind in scheme.kinds]
    elif task == "heads":
        heads = [[name] for name in scheme.names]
    else:
        heads = [[task]] if isinstance(task, str) else [list(head) for head in task]
    named = [name for head in heads for name in head]
    known = list(scheme.names)
    mistakes = [
        Mistake("task", f"{name!r} is not a target; there are {', '.join(known)}, and joint and heads for all of them")
        for name in named
        if name not in known
    ]
    mistakes += [Mistake("task", f"{name} is predicted by two heads; name it once") for name in known if named.count(name) > 1]
    mistakes += [
        Mistake("task", f"{' and '.join(head)} are of different kinds; give each kind a head of its own")
        for head in heads
        if len(scheme.part(tuple(head)).kinds) > 1
    ]
    if not named or not all(heads):
        mistakes.append(Mistake("task", "a head without targets predicts nothing; name at least one"))
    if mistakes:
        raise ConfigError(mistakes)
    # Targets of a head are kept in the data's order, so one product has one numbering.
    ordered = tuple(tuple(name for name in known if name in head) for head in heads)
    return Task(scheme.part(tuple(named)), ordered)
