"""What every setting and every table of names is made of.

A registry is a plain dict of names: `choose` looks one up, with an error that teaches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16)]
Numbers = Annotated[tuple[Count, ...], Field(strict=False)]
Range = Annotated[tuple[int, int], Field(strict=False)]
Channels = Annotated[tuple[float, float, float], Field(strict=False)]
Statistics = Annotated[tuple[Channels, Channels], Field(strict=False)]

Named = TypeVar("Named")


class Section(BaseModel):
    # Tuples among the fields lift `strict` for themselves: YAML and JSON know lists only.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def setting(meaning: str, default: Any = ...) -> Any:
    """A field that explains itself: its meaning stands in docs/space.md."""
    return Field(default, description=meaning)


@dataclass(frozen=True)
class Entry:
    """What a name in a registry stands for: its own settings, and what makes the thing from them."""

    settings: type[Section]
    build: Callable[..., Any]


class ConfigError(ValueError):
    """A configuration that cannot be trained; `mistakes` holds every (path, message) found."""

    def __init__(self, mistakes: list["Mistake"]):
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a setting: where (`loss/gamma`) and what, with the fix."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def choose(table: Mapping[str, Named], name: str, path: str) -> Named:
    """What the name stands for. Raises: ConfigError at the path, which says which names there are."""
    if name not in table:
        names = ", ".join(sorted(table))
        near = nearest(name, list(table))
        hint = f"{near} There are {names}." if near else f"; choose one of {names}"
        raise ConfigError([Mistake(path, f"{name!r} does not exist{hint}")])
    return table[name]


def nearest(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: `; did you mean loss/smoothing?`, or nothing where no known name is near."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def ascending(values: tuple) -> tuple:
    """The values. Raises: ValueError where one is not above the one before it."""
    if list(values) != sorted(set(values)):
        raise ValueError("the values must ascend")
    return values
