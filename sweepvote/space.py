"""What may vary, written in Python: the same dicts that a YAML space holds."""

from collections.abc import Iterable, Mapping
from typing import Any

When = Mapping[str, Any]


def choice(*values: Any, when: When | None = None) -> dict[str, Any]:
    """One of these values: `choice("adam", "sgd")` is YAML's `{choice: [adam, sgd]}`.

    Args:
        when: drawn only where other settings, by path, have this value or one of a list: `{"loss/name": "focal"}`.

    >>> choice(64, 128, when={"task": "joint"})
    {'choice': [64, 128], 'when': {'task': 'joint'}}
    """
    return {"choice": list(values), **_when(when)}


def real(low: float, high: float, *, log: bool = False, step: float | None = None, when: When | None = None) -> dict[str, Any]:
    """A number from low to high, both included; `log` draws its logarithm evenly, `step` leaves only low, low + step, ...

    >>> real(1e-4, 1e-2, log=True)
    {'float': [0.0001, 0.01], 'log': True}
    """
    return {"float": [float(low), float(high)], **_manner(log, step), **_when(when)}


def integer(low: int, high: int, *, log: bool = False, step: int | None = None, when: When | None = None) -> dict[str, Any]:
    """A whole number from low to high, both included.

    >>> integer(1, 9, step=2)
    {'int': [1, 9], 'step': 2}
    """
    return {"int": [low, high], **_manner(log, step), **_when(when)}


def _manner(log: bool, step: float | None) -> dict[str, Any]:
    return ({"log": True} if log else {}) | ({"step": step} if step is not None else {})


def _when(when: When | None) -> dict[str, Any]:
    return {} if when is None else {"when": {path: _plain(allowed) for path, allowed in when.items()}}


def _plain(allowed: Any) -> Any:
    return list(allowed) if isinstance(allowed, Iterable) and not isinstance(allowed, str) else allowed
