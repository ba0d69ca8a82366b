"""The baseline of a search: what one would have trained without searching.

It is the first start entry of the space, or else the space's defaults, and the search proposes it first: as trial `FIRST`, which no pruner
stops. No record says so by itself. Any trial of these values is the baseline, so that runs of earlier versions have theirs where they
trained it.
"""

from collections.abc import Mapping
from typing import Any

from search_spaces.schema import Space, as_optuna, flat, same
from trainables.config import TrialConfig, default_of

FIRST = 0  # its number


def baseline_of(space: Space) -> dict[str, Any]:
    """The searched values, by path, that make a configuration the baseline; a start entry may leave the others open."""
    if not space.start:
        return space.defaults(default_of)
    searched = {parameter.path for parameter in space.parameters}
    return {path: value for path, value in space.start[0].items() if path in searched}


def is_baseline(config: TrialConfig, values: Mapping[str, Any]) -> bool:
    """Whether a configuration has the values, by path, that `baseline_of` found; none has, where it found nothing, and no probe."""
    settings = flat(config.values())
    return (
        bool(values)
        and not config.model.is_probe
        and all(same(as_optuna(settings.get(path)), as_optuna(value)) for path, value in values.items())
    )
