"""What is predicted: targets of three kinds, the joint class of several Classes, and tasks as lists of heads.

Classes are one of several, Tags any of several, a Number is a number. The joint class is the mixed-radix number of all Classes, the first
the most significant digit: of mask, gender and age with 3, 2 and 3 values it is 6 * mask + 3 * gender + age.

A question about some Classes, such as `age<30` or `colour=red`, is Classes too, of two values: which of them follows from the value of the
target that it is about. Any scheme with that target knows it by its name.

Truth and answer are arrays: of Classes true joint classes (n,) and probabilities (n, classes); of Tags whether each is there (n, tags) and
probabilities (n, tags); of a Number the numbers (n,) and predicted ones (n, 1).
"""

import math
from collections.abc import Iterable, Sequence
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
    of: str = ""  # the target that this is a question about; empty: it is none
    answers: tuple[int, ...] = ()  # of a question, by the class id of that target: its own class id

    @classmethod
    def banded(cls, name: str, cuts: tuple[int, ...]) -> "Classes":
        """The bands that cuts make of a number, such as <30, 30-59, >=60."""
        between = [f"{low}-{high - 1}" for low, high in zip(cuts, cuts[1:], strict=False)]
        return cls(name, (f"<{cuts[0]}", *between, f">={cuts[-1]}"), cuts)

    def question(self, asked: str) -> "Classes | None":
        """What `NAME<CUT`, `NAME>=CUT`, `NAME=VALUE` or `NAME=VALUE|VALUE` asks about this target; None where it asks nothing of it, or
        what is always or never so."""
        text = asked.removeprefix(self.name) if asked.startswith(self.name) else ""
        for sign in ("<", ">="):
            cut = text.removeprefix(sign)
            if text.startswith(sign) and cut in map(str, self.cuts):
                first = 1 + self.cuts.index(int(cut))
                answers = tuple(int(value >= first) for value in range(len(self.values)))
                return Classes(asked, (f"<{cut}", f">={cut}"), (int(cut),), of=self.name, answers=answers)
        named = (text[1:],) if text[1:] in self.values else tuple(text[1:].split("|"))
        if not text.startswith("=") or not set(named) < set(self.values) or len(set(named)) < len(named):
            return None
        words = " or ".join(named)
        return Classes(asked, (words, f"not {words}"), of=self.name, answers=tuple(int(value not in named) for value in self.values))

    def questions(self) -> list[str]:
        """Examples of what `question` understands, for people."""
        return [f"{self.name}<{self.cuts[0]}", f"{self.name}>={self.cuts[-1]}"] if self.cuts else [f"{self.name}={self.values[0]}"]

    def plain(self) -> tuple:
        """The target as JSON knows it; `read_target` takes it back."""
        asked = (self.kind, self.of, self.answers) if self.of else ()
        return self.name, self.values, self.cuts, *asked


@dataclass(frozen=True)
class Tags:
    """Any of several values, none of them too."""

    name: str
    values: tuple[str, ...]
    kind: Literal["tags"] = "tags"
    cuts: ClassVar[tuple[int, ...]] = ()
    of: ClassVar[str] = ""

    def plain(self) -> tuple:
        """The target as JSON knows it; `read_target` takes it back."""
        return self.name, self.values, (), self.kind


@dataclass(frozen=True)
class Number:
    """A real number."""

    name: str
    kind: Literal["number"] = "number"
    cuts: ClassVar[tuple[int, ...]] = ()
    of: ClassVar[str] = ""

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
    of, answers = plain[4:6] if len(plain) > 4 else ("", ())
    return Classes(name, tuple(values), tuple(cuts), of=of, answers=tuple(answers))


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
        """Joint classes (n,) of some of the Classes, or questions about them, in this scheme's order, of class ids (n, Classes)."""
        part = self.part(names)
        return part.joint(self.ids(part.names, labels))

    def ids(self, names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
        """Class ids (n, names) of some of the Classes, or questions about them, in the given order, of class ids (n, Classes)."""
        known = self.of_kind("classes").names
        if set(names) <= set(known):
            return labels[:, self.columns(names)]
        found = (self._find(name) for name in names)
        columns = [
            labels[:, known.index(one.name)] if one.name in known else np.array(one.answers)[labels[:, known.index(one.of)]]
            for one in found
            if isinstance(one, Classes)
        ]
        return np.stack(columns, axis=-1)

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
        """The scheme of some of the targets, and of questions about them, in this scheme's order; what it does not know is left out."""
        asked = [found for name in names if name not in self.names and (found := self._find(name))]
        own = [[one for one in asked if one.of == target.name] for target in self.targets]
        return Scheme(
            tuple(one for target, its in zip(self.targets, own, strict=True) for one in ([target] if target.name in names else []) + its)
        )

    def about(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The targets, in this scheme's order, that these names are of or ask about."""
        found = {target.of if target.name not in self.names else target.name for target in map(self._find, names) if target}
        return tuple(name for name in self.names if name in found)

    def determine(self, names: tuple[str, ...]) -> bool:
        """Whether answers to these targets and questions leave one joint class of this scheme, which is of Classes, whatever they are."""
        rows = self.ids(names, self.split(np.arange(self.classes)))
        return len(np.unique(rows, axis=0)) == self.classes

    def told(self, names: Iterable[str]) -> "Scheme":
        """What answers to these targets and questions tell together: a target where its value follows, else the question about it that is
        named first."""
        known: list[str] = []
        names = tuple(dict.fromkeys(names))
        for target in self.targets:
            own = tuple(name for name in names if self.about((name,)) == (target.name,))
            follows = target.name in own or own and self.part((target.name,)).determine(own)
            known += [target.name] if follows else own[:1]
        return self.part(tuple(known))

    def _find(self, name: str) -> Target | None:
        """The target of this name, or what it asks about one."""
        own = next((target for target in self.targets if target.name == name), None)
        return own or next((found for target in self.targets if isinstance(target, Classes) and (found := target.question(name))), None)

    def marginal(self, names: tuple[str, ...], probabilities: Array) -> Array:
        """The answer (n, classes of the part) to some of the targets, or questions about them, which are of one kind, from that to all
        (n, classes)."""
        if self.kind != "classes":
            return probabilities
        if not set(names) <= set(self.names):
            index = self.joint_of(names, self.split(np.arange(self.classes)))
            sums = np.eye(self.part(names).classes)[index]
            return probabilities @ (probabilities.new_tensor(sums) if hasattr(probabilities, "new_tensor") else sums)
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


NOTHING = 1e-12  # what the product of parts that contradict each other is at least, so that a class is left


def compose(scheme: Scheme, parts: Sequence[tuple[Scheme, Array]]) -> Array:
    """The answer (n, columns) to the targets of a scheme, which are of one kind, from parts that together determine it.

    A joint class is as probable as the product, over the parts, of what each says of its own class there. Where the parts cover each target
    once, which are then taken as independent, these are probabilities; where parts ask questions about a target, such as `age<30` and
    `age>=60`, some products are of no class, and the others are divided by their sum: a product of experts.

    Args:
        parts: (scheme of some targets, or questions about them; answer to them); arrays, or tensors of torch.
    Source: Hinton, Products of Experts, ICANN 1999.
    """
    if scheme.kind != "classes":
        ((_, answer),) = parts
        return answer
    if all(set(part.names) <= set(scheme.names) for part, _ in parts):
        shapes = ([size if name in part.names else 1 for name, size in zip(scheme.names, scheme.sizes, strict=True)] for part, _ in parts)
        spread = (probabilities.reshape(-1, *shape) for (_, probabilities), shape in zip(parts, shapes, strict=True))
        return reduce(mul, spread).reshape(-1, scheme.classes)
    values = scheme.split(np.arange(scheme.classes))
    product = reduce(mul, (probabilities[:, scheme.joint_of(part.names, values).tolist()] for part, probabilities in parts)) + NOTHING
    return product / product.sum(axis=1)[:, None]


def read_task(task: str | list[list[str]], scheme: Scheme) -> Task:
    """The heads that `task` asks for: joint (one for all Classes), heads (one a target), one target's name or a question about one, or a
    list of lists of these.

    Raises: ConfigError for an unknown or repeated target, and for a head of targets of several kinds.
    """
    if task == "joint":
        heads = [list(scheme.of_kind(kind).names) for kind in scheme.kinds]
    elif task == "heads":
        heads = [[name] for name in scheme.names]
    else:
        heads = [[task]] if isinstance(task, str) else [list(head) for head in task]
    named = tuple(name for head in heads for name in head)
    part = scheme.part(named)
    mistakes = [Mistake("task", _no_target(name, scheme)) for name in named if name not in part.names]
    mistakes += [Mistake("task", f"{name} is predicted by two heads; name it once") for name in part.names if named.count(name) > 1]
    for name in scheme.names:
        asked = [one for one in part.names if scheme.about((one,)) == (name,)]
        if len(asked) > 1:
            words = f"{' and '.join(asked)} are about {name} both; let a trial ask one, and others the other: task: {{choice: [...]}}"
            mistakes.append(Mistake("task", words))
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
    ordered = tuple(tuple(name for name in part.names if name in head) for head in heads)
    return Task(part, ordered)


def _no_target(name: str, scheme: Scheme) -> str:
    """Why a name is none, as exactly as can be said."""
    about = next((one for one in scheme.of_kind("classes").targets if name[: len(one.name)] == one.name and name[len(one.name) :]), None)
    if isinstance(about, Classes) and name[len(about.name)] in "<>=":
        there = f"its cuts are {', '.join(map(str, about.cuts))}" if about.cuts else "it is cut from no number"
        return (
            f"{name!r} asks nothing that {about.name} tells: {there}, its values {', '.join(about.values)}; "
            f"write {' or '.join(about.questions())}, or values with | between them"
        )
    return f"{name!r} is not a target; there are {', '.join(scheme.names)}, and joint and heads for all of them"
