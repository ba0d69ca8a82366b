"""What every setting and every registry is made of.

A registry is a dict from a name to an `Entry`: the name's own settings, and what makes the thing from them. The settings of an entry
derive from those of its section, which all entries share:

    class FocalSettings(LossConfig):
        gamma: Annotated[float, Field(ge=0)] = setting("0 is plain cross-entropy", 2.0)

    LOSSES["focal"] = LossEntry(FocalSettings, lambda settings, head: partial(focal, gamma=settings.gamma))
"""

from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from search_spaces.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16)]
Numbers = Annotated[tuple[Count, ...], Field(strict=False)]
Range = Annotated[tuple[int, int], Field(strict=False)]
Pair = Annotated[tuple[Positive, Positive], Field(strict=False)]
Channels = Annotated[tuple[float, float, float], Field(strict=False)]
Statistics = Annotated[tuple[Channels, Channels], Field(strict=False)]

Named = TypeVar("Named")


class Section(BaseModel):
    # Tuples among the fields lift `strict` for themselves: YAML and JSON know lists only.
    # Built when first used: a command's help needs no validator, and there are dozens.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


Settings = TypeVar("Settings", bound=Section, covariant=True)


def setting(meaning: str, default: Any = ..., values: str = "") -> Any:
    """A field that explains itself; both texts stand in docs/space.md.

    Args:
        values: how to write one, for a field of several types; of others the type says it.
    """
    extra: JsonDict | None = {"values": values} if values else None
    return Field(default, description=meaning, json_schema_extra=extra)


@dataclass(frozen=True)
class Entry(Generic[Settings]):
    """What a name in a registry stands for."""

    settings: type[Settings]  # the section's class, or one that derives from it
    build: Callable[..., Any]  # makes the thing from such settings; what else it is given is for the registry to say


class RegistryError(ValueError):
    """An entry that its registry cannot take."""


class Registry(UserDict[str, Named]):
    """What there is to choose from, by name; a name stands for one thing, so none is given twice.

    Sweepvote's own entries are there from the start, a user's are added (`registry["mine"] = entry`, see `trainables.extensions`).
    """

    every: ClassVar[list["Registry"]] = []

    def __init__(self, entries: Mapping[str, Named], kind: type[Named], settings: type[Section] = Section):
        """
        Args:
            kind: of which every entry is.
            settings: from which those of every entry derive.
        """
        self._kind, self._settings = kind, settings
        super().__init__(entries)
        self.origins = dict.fromkeys(entries, "")  # by name: the sha256 of the extension that it came with; empty: sweepvote's own
        Registry.every.append(self)

    def __setitem__(self, key: str, item: Named) -> None:
        """Raises: RegistryError for a name that is taken, and for what is no such entry."""
        name, entry, kind = key, item, self._kind.__name__
        if name in self.data:
            raise RegistryError(f"{name!r} exists already; choose another name")
        if not isinstance(entry, self._kind):
            raise RegistryError(f"{name!r} must be a {kind}, not a {type(entry).__name__}")
        if isinstance(entry, Entry) and not issubclass(entry.settings, self._settings):
            raise RegistryError(f"the settings of {name!r} must derive from {self._settings.__name__}")
        if (own := getattr(entry, "name", name)) != name:
            raise RegistryError(f"{name!r} holds a {kind} that is named {own!r}; use one name")
        self.data[name] = entry


class ConfigError(UserError, ValueError):
    """A configuration that cannot be trained; `mistakes` holds every (path, message) found."""

    def __init__(self, mistakes: list["Mistake"]):
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


class UnknownEntryError(ConfigError):
    """A record's settings choose what this version, without the run's own parts, does not have. The record itself is intact."""


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a setting: where (`loss/gamma`) and what, with the fix."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def choose(table: Mapping[str, Named], name: str, path: str) -> Named:
    """What the name stands for. Raises: ConfigError at the path, with the names that exist."""
    if name not in table:
        names = ", ".join(sorted(table))
        near = nearest(name, list(table))
        hint = f"{near} Choose one of {names}." if near else f"; choose one of {names}"
        raise ConfigError([Mistake(path, f"{name!r} does not exist{hint}")])
    return table[name]


def nearest(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: `; did you mean loss/smoothing?`, or nothing where no known name is near."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def ascending(values: tuple) -> tuple:
    """The values. Raises: ValueError where one is not above the one before it."""
    if list(values) != sorted(set(values)):
        raise ValueError("the values must be in ascending order")
    return values
