"""What varied in a search: the dimensions of the space that the run keeps, and the values that a trial drew of them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

NOT_SEARCHED = ("run", "start", "on_cpu", "extends")
KINDS = ("choice", "float", "int")
When = tuple[tuple[str, tuple], ...]  # paths, and the values that each must have


@dataclass(frozen=True)
class Dimension:
    """One searched value."""

    path: str  # section/field, such as loss/gamma
    kind: Literal["choice", "float", "int"]
    values: tuple  # of a choice; else low and high
    log: bool = False
    when: When = ()  # it is drawn only where all of these hold

    def is_drawn(self, values: Mapping[str, Any]) -> bool:
        return all(path in values and any(same(values[path], one) for one in allowed) for path, allowed in self.when)

    def takes(self, value: Any) -> bool:
        """Whether a value is of its kind: a record may be of an earlier version of the space."""
        if self.kind == "choice":
            return True
        return isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or not self.log)

    def place(self, value: Any) -> float | None:
        """Where the value lies between the ends of the range or among the choices, 0 to 1; None for what is not one of the choices."""
        if self.kind == "choice":
            index = next((index for index, one in enumerate(self.values) if same(one, value)), None)
            return None if index is None else index / (len(self.values) - 1) if len(self.values) > 1 else 0.5
        low, high, here = (math.log(number) if self.log else number for number in (*self.values, value))
        return min(max((here - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def read_dimensions(text: str) -> tuple[Dimension, ...]:
    """The searched values of a space's YAML, none before one that its `when` names. Raises: ValueError for what is not a space."""
    try:
        content = yaml.safe_load(text)
        fields = flat({name: value for name, value in content.items() if name not in NOT_SEARCHED})
        return tuple(_in_drawing_order([_dimension(path, value) for path, value in fields.items() if _is_searched(value)]))
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"it is not a space ({type(error).__name__}: {error})") from None


def drawn(dimensions: Sequence[Dimension], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The searched values among a trial's settings (by path); a default in the place of a value that was not drawn is none."""
    searched = {dimension.path for dimension in dimensions}
    settled = {path: value for path, value in settings.items() if path not in searched}
    found = {}
    for dimension in dimensions:
        if dimension.path in settings and dimension.is_drawn(settled) and dimension.takes(settings[dimension.path]):
            found[dimension.path] = settled[dimension.path] = settings[dimension.path]
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their paths; what describes a searched value stays in one piece."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and not _is_searched(value):
            found |= {f"{name}/{inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def same(one: Any, other: Any) -> bool:
    """Equality in which true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def words(value: Any) -> str:
    """A value in a table or beside an axis: numbers short, texts as they are, lists as JSON."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def when_words(when: When) -> str:
    """A branch of the space in words: `loss/name = focal`."""
    return " and ".join(f"{path} = {' or '.join(map(words, allowed))}" for path, allowed in when) or "every trial"


def _in_drawing_order(dimensions: Sequence[Dimension]) -> Iterator[Dimension]:
    waiting = {dimension.path: dimension for dimension in dimensions}
    while waiting:
        # Conditions in a circle are no space, but nothing to wait for either.
        ready = (one for one in waiting.values() if not any(path in waiting for path, _ in one.when))
        yield waiting.pop(next(ready, next(iter(waiting.values()))).path)


def _is_searched(value: Any) -> bool:
    return isinstance(value, Mapping) and any(kind in value for kind in KINDS)


def _dimension(path: str, spec: Mapping[str, Any]) -> Dimension:
    kind = next(kind for kind in KINDS if kind in spec)
    when = tuple((name, tuple(value) if isinstance(value, list) else (value,)) for name, value in spec.get("when", {}).items())
    return Dimension(path, kind, tuple(spec[kind]), bool(spec.get("log", False)), when)
