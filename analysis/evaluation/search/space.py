"""What varied in a search: the dimensions of the space that the run keeps, as they are named and drawn."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from search_spaces.schema import Choice, Float, Parameter, is_number, same

When = tuple[tuple[str, tuple], ...]  # paths, and the values that each must have


@dataclass(frozen=True)
class Dimension:
    """One searched value."""

    path: str  # section/field, such as loss/gamma
    kind: Literal["choice", "float", "int"]
    values: tuple  # of a choice; else low and high
    log: bool = False
    when: When = ()  # it is drawn only where all of these hold

    @classmethod
    def of(cls, parameter: Parameter) -> "Dimension":
        domain = parameter.domain
        kind = "choice" if isinstance(domain, Choice) else "float" if isinstance(domain, Float) else "int"
        return cls(parameter.path, kind, domain.ends(), not isinstance(domain, Choice) and domain.log, parameter.when)

    def takes(self, value: Any) -> bool:
        """Whether a value is of its kind: a record may be of an earlier version of the space."""
        if self.kind == "choice":
            return True
        return is_number(value) and (value > 0 or not self.log)

    def place(self, value: Any) -> float | None:
        """Where the value lies between the ends of the range or among the choices, 0 to 1; None for what is not one of the choices."""
        if self.kind == "choice":
            index = next((index for index, one in enumerate(self.values) if same(one, value)), None)
            return None if index is None else index / (len(self.values) - 1) if len(self.values) > 1 else 0.5
        low, high, here = (math.log(number) if self.log else number for number in (*self.values, value))
        return min(max((here - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def words(value: Any) -> str:
    """A value in a table or beside an axis: numbers short, texts as they are, lists as JSON."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def when_words(when: When) -> str:
    """A branch of the space in words: `loss/name = focal`."""
    return " and ".join(f"{path} = {' or '.join(map(words, allowed))}" for path, allowed in when) or "every trial"
