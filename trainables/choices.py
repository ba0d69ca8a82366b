"""Looking a name up in a registry, with an error that teaches."""

from collections.abc import Mapping
from typing import TypeVar

from trainables.config import ConfigError, Mistake, nearest

Entry = TypeVar("Entry")


def choose(table: Mapping[str, Entry], name: str, setting: str) -> Entry:
    """Return `table[name]`. Raises ConfigError that says which names there are."""
    if name not in table:
        names = ", ".join(sorted(table))
        near = nearest(name, list(table))
        hint = f"{near} There are {names}." if near else f"; choose one of {names}"
        raise ConfigError([Mistake(setting, f"{name!r} does not exist{hint}")])
    return table[name]
