"""A search space as plain frozen records: domains, parameters that may be conditional, and the `Space` that draws them.

A path is `section/field` (`loss/gamma`) or a field of the top level (`task`). `trial` is anything with Optuna's suggest methods.
Optuna knows no lists: a list among the choices goes to it as its JSON text and comes back as a list.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from search_spaces.errors import UserError


class SpaceError(UserError, ValueError):
    """A space that cannot be searched; `mistakes` holds one line for every mistake found."""

    def __init__(self, mistakes: list[str]):
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))

    def __reduce__(self):
        return type(self), (self.mistakes,)


@dataclass(frozen=True)
class Choice:
    """One of some plain values; lists are allowed."""

    values: tuple

    def suggest(self, trial: Any, path: str) -> Any:
        of_drawn = {as_optuna(value): value for value in self.values}
        return deepcopy(of_drawn[trial.suggest_categorical(path, tuple(of_drawn))])

    def holds(self, value: Any) -> bool:
        return any(same(value, choice) for choice in self.values)

    def describe(self) -> str:
        return "one of " + ", ".join(map(show, self.values))

    def ends(self) -> tuple:
        """The values worth checking: all of them."""
        return self.values

    def every(self) -> tuple:
        return self.values

    def usual(self, default: Any) -> Any:
        """The default where it is among the values, else the first of them."""
        return deepcopy(next((value for value in self.values if same(as_optuna(value), as_optuna(default))), self.values[0]))


@dataclass(frozen=True)
class Float:
    """Real numbers from low to high, both included; with `step`, only low, low + step, ..., high."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Any, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high, log=self.log, step=self.step)

    def holds(self, value: Any) -> bool:
        return is_number(value) and self.low <= value <= self.high and (self.step is None or divides(self.step, value - self.low))

    def describe(self) -> str:
        return f"a number from {show(self.low)} to {show(self.high)}{_manner(self)}"

    def ends(self) -> tuple[float, float]:
        """The values worth checking: low and high."""
        return self.low, self.high

    def usual(self, default: Any) -> float:
        """The default where it lies within, else the middle."""
        return float(default) if self.holds(default) else _middle(self)


@dataclass(frozen=True)
class Int:
    """Integers from low to high, both included; with `step`, only low, low + step, ..., high."""

    low: int
    high: int
    log: bool = False
    step: int | None = None

    def suggest(self, trial: Any, path: str) -> int:
        return trial.suggest_int(path, self.low, self.high, log=self.log, step=self.step or 1)

    def holds(self, value: Any) -> bool:
        return type(value) is int and value in self.every()

    def describe(self) -> str:
        return f"an integer from {self.low} to {self.high}{_manner(self)}"

    def ends(self) -> tuple[int, int]:
        """The values worth checking: low and high."""
        return self.low, self.high

    def every(self) -> range:
        return range(self.low, self.high + 1, self.step or 1)

    def usual(self, default: Any) -> int:
        """The default where it lies within, else the middle."""
        return default if self.holds(default) else round(_middle(self))


Numeric = Float | Int
Domain = Choice | Numeric
When = tuple[tuple[str, tuple], ...]  # conditions that must all hold: a path, and the values that it must have


@dataclass(frozen=True)
class Parameter:
    """A searched value; drawn only where every `when` (a path and the values that it must have) holds."""

    path: str
    domain: Domain
    when: When
    place: str  # file.yaml:12


@dataclass(frozen=True)
class Chooser:
    """What depends on a setting that names an entry of a registry, such as `loss/name`: which other settings its section has."""

    default: str  # the entry where no name is given
    settings: Mapping[str, tuple[str, ...]]  # by entry: the paths of the other settings of its section

    def having(self, path: str) -> list[str]:
        """The entries that have the setting."""
        return [name for name, paths in self.settings.items() if path in paths]

    def refusal(self, path: str, chosen: Sequence[str]) -> str:
        """That none of the chosen entries has the setting, which ones have it, and what the chosen have."""
        having, names = self.having(path), " or ".join(chosen)
        there = list(dict.fromkeys(one for name in chosen for one in self.settings.get(name, ())))
        if having:
            hint = f", but of {', '.join(having)};"
        else:
            near = get_close_matches(path, dict.fromkeys(one for paths in self.settings.values() for one in paths), n=1)
            hint = f"; did you mean {near[0]} (of {', '.join(self.having(near[0]))})?" if near else ";"
        fields = ", ".join(one.rpartition("/")[2] for one in there) or "no other settings"
        return f"is not a setting of {names}{hint} {names} {'have' if len(chosen) > 1 else 'has'} {fields}"


@dataclass(frozen=True)
class Space:
    """What may vary, in drawing order: no parameter stands before one that its `when` names."""

    name: str
    file: str
    run: dict[str, Any]  # never searched: trials, epochs, ...
    fixed: dict[str, Any]
    parameters: tuple[Parameter, ...]
    start: tuple[dict[str, Any], ...]  # partial configurations to try first, by path
    places: dict[str, str]  # of every path and section, run's too: file.yaml:12
    fixed_when: dict[str, When] = field(default_factory=dict)  # of fixed values that not every configuration has
    # What an overlay, a change or a child took from which start entry, a line each.
    left_out: tuple[str, ...] = field(default=(), compare=False)

    def __call__(self, trial: Any) -> dict[str, Any]:
        """Draw one configuration: the nested dict of fixed and drawn values. The names in `trial` are the paths."""
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            if holds(parameter.when, self.settled(drawn)):
                drawn[parameter.path] = parameter.domain.suggest(trial, parameter.path)
        return nested(deepcopy(self.settled(drawn)))

    def settled(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The fixed values that a configuration has where these were drawn, and these, by path."""
        values = {path: value for path, value in self.fixed.items() if path not in self.fixed_when} | dict(drawn)
        return values | {path: self.fixed[path] for path, when in self.fixed_when.items() if holds(when, values)}

    def drawn(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The searched values, by path, in a nested configuration; a default in the place of a value not drawn is none."""
        given = flat(values)
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.path in given and holds(parameter.when, self.settled(drawn)):
                drawn[parameter.path] = as_drawn(parameter.domain, given[parameter.path])
        return drawn

    def defaults(self, default_of: Callable[[str, Mapping[str, Any]], Any]) -> dict[str, Any]:
        """The searched values, by path, of the configuration that has every setting's default, where that can be drawn; else the first of
        some choices, and the middle of a range, on its scale.

        Args:
            default_of: a setting's default, by its path and the values settled so far.
        """
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            if holds(parameter.when, settled := self.settled(drawn)):
                drawn[parameter.path] = parameter.domain.usual(default_of(parameter.path, settled))
        return drawn

    def with_run(self, run: Mapping[str, Any]) -> "Space":
        """The space with another section `run`."""
        return replace(self, run=dict(run))

    def grid(self, prefix: str) -> list[dict[str, Any]]:
        """Every combination, by path, of the values at or under `prefix`.

        A condition that depends on searched values elsewhere may hold or not: the combinations with and without the value are listed.
        Raises: SpaceError when a float range is among them, which has no end of values.
        """
        inside = [parameter for parameter in self.parameters if _is_under(parameter.path, prefix)]
        elsewhere = {parameter.path for parameter in self.parameters} - {parameter.path for parameter in inside}
        endless = [parameter for parameter in inside if isinstance(parameter.domain, Float)]
        if endless:
            raise SpaceError([f"{p.place}: {p.path}: a float range has infinitely many values; list some with choice." for p in endless])
        combinations: list[dict[str, Any]] = [{}]
        listed = [(parameter, parameter.domain.every()) for parameter in inside if not isinstance(parameter.domain, Float)]
        for parameter, values in listed:
            decidable = [condition for condition in parameter.when if condition[0] not in elsewhere]
            open_ended = len(decidable) < len(parameter.when)
            grown = []
            for combination in combinations:
                possible = holds(tuple(decidable), self.settled(combination))
                if open_ended or not possible:
                    grown.append(combination)
                if possible:
                    grown += [combination | {parameter.path: value} for value in values]
            combinations = grown
        return [{path: value for path, value in self.settled(one).items() if _is_under(path, prefix)} for one in combinations]

    def start_trials(self) -> list[dict[str, Any]]:
        """The searched values of each start entry, as `study.enqueue_trial` takes them."""
        searched = {parameter.path for parameter in self.parameters}
        return [{path: as_optuna(value) for path, value in entry.items() if path in searched} for entry in self.start]


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"loss/gamma": 2.0, "task": "joint"}` as `{"loss": {"gamma": 2.0}, "task": "joint"}`."""
    result: dict[str, Any] = {}
    for path, value in values.items():
        section, _, field = path.rpartition("/")
        (result.setdefault(section, {}) if section else result)[field] = value
    return result


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `nested`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= {f"{name}/{field}": inner for field, inner in value.items()} if isinstance(value, Mapping) else {name: value}
    return result


def as_optuna(value: Any) -> Any:
    """The value as a categorical choice of Optuna: a list becomes its JSON text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def as_drawn(domain: Domain, value: Any) -> Any:
    """A record's value as the domain drew it: a setting of real numbers gives a whole 7 back as 7.0."""
    return int(value) if isinstance(domain, Int) and isinstance(value, float) and value.is_integer() else value


def same(one: Any, other: Any) -> bool:
    """Equality in which true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def show(value: Any) -> str:
    """The value as it is written in YAML, which needs a point and a sign in 1.0e-5."""
    if isinstance(value, str):
        return value
    mantissa, _, exponent = repr(value).partition("e") if isinstance(value, float) else ("", "", "")
    return f"{float(mantissa)}e{int(exponent):+d}" if exponent else json.dumps(value, default=str, skipkeys=True)


def divides(step: float, length: float) -> bool:
    """Whether whole steps cover the length, but for rounding (the tolerance is Optuna's)."""
    steps = length / step
    return math.isfinite(steps) and abs(steps - round(steps)) < 1e-8


def holds(when: When, values: Mapping[str, Any]) -> bool:
    """Whether the conditions hold among the values settled so far; what was not drawn itself fulfils none."""
    return all(name in values and holds_in(allowed, values[name]) for name, allowed in when)


def holds_in(allowed: tuple, value: Any) -> bool:
    return any(same(value, one) for one in allowed)


def _middle(domain: Numeric) -> float:
    """The middle of a range on its scale, or the step that is nearest to it."""
    low, high = domain.low, domain.high
    middle = math.sqrt(low * high) if domain.log else (low + high) / 2
    return min(low + round((middle - low) / domain.step) * domain.step, high) if domain.step else middle


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _manner(domain: Float | Int) -> str:
    return ", log" if domain.log else "" if domain.step is None else f" in steps of {show(domain.step)}"
