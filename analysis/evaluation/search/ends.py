"""Searched settings whose best value lies at the end of its range, so that a better one may lie beyond."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.evaluation.search.history import ranked
from analysis.evaluation.search.reading import Search, SearchedTrial
from analysis.evaluation.search.space import Dimension
from search_spaces.schema import is_number, nested
from trainables.config import TrialConfig
from trainables.registry import ConfigError

BEST = 5  # trials, by which the best one is no accident
OUTER = 0.05  # of a range, on its scale, where the best trial's value counts as at the end
NEAR = 0.2  # of a range, where half of the best trials' values have to be
FEWEST = 10  # trials; with fewer, the best ones say little


@dataclass(frozen=True)
class RangeEnd:
    """A setting whose best values are at an end of its range."""

    path: str
    end: Literal["low", "high"]
    limit: Any  # the end of the range
    best: Any  # the best trial's value
    near: int  # how many of the best trials have values near that end, the best one included
    of: int  # how many of the best trials drew it
    beyond: Any  # a value on the other side of the end, which the setting takes


def ends_in(search: Search) -> tuple[RangeEnd, ...] | str:
    """Those of a run; why that is not known where nothing varied, or too few trials have a score."""
    if not search.space:
        return f"nothing varied in {search.name}, or space.yaml is not there"
    searched = [trial for trial in ranked(search.trials, search.metric) if trial.values]
    if len(searched) < FEWEST:
        return f"{len(searched)} trials with a score are too few, {FEWEST} are needed"
    return tuple(range_ends(searched, search.space))


def range_ends(best_first: Sequence[SearchedTrial], space: Sequence[Dimension]) -> list[RangeEnd]:
    """The settings, in the space's order, whose value in the best trial that drew it is in the outer 5 % of its range, or the first or last
    of three or more numbers to choose from, where half of the best five have values near that end, and where the setting can go beyond it.

    Args:
        best_first: the trials with a score, best first, probes left out.
    """
    found = []
    for dimension in space:
        values = _ordered(dimension)
        drew = [trial for trial in best_first if dimension.path in trial.values]
        if values is None or len(drew) < FEWEST:
            continue
        places = [_place(dimension, values, trial.values[dimension.path]) for trial in drew[:BEST]]
        outer, near = (OUTER, NEAR) if dimension.kind != "choice" else (0.0, 0.0)
        for end, limit, apart in (("low", values[0], places), ("high", values[-1], [1 - place for place in places])):
            count = sum(place <= near for place in apart)
            if apart[0] > outer or count < len(apart) / 2:
                continue
            if (beyond := _beyond(dimension, values, end)) is not None and _takes(drew[0], dimension.path, beyond):
                found.append(RangeEnd(dimension.path, end, limit, drew[0].values[dimension.path], count, len(apart), beyond))
    return found


def _ordered(dimension: Dimension) -> tuple | None:
    """The values between which it lies, the lowest first; None where they have no order, or are fewer than three to choose from."""
    if dimension.kind != "choice":
        return dimension.values if dimension.values[0] < dimension.values[1] else None
    return tuple(sorted(dimension.values)) if len(dimension.values) > 2 and all(map(is_number, dimension.values)) else None


def _place(dimension: Dimension, values: tuple, value: Any) -> float:
    if dimension.kind != "choice":
        return dimension.place(value) or 0.0
    return values.index(value) / (len(values) - 1) if value in values else 0.5


def _beyond(dimension: Dimension, values: tuple, end: str) -> Any:
    """As far beyond an end as its neighbour among the choices is before it; of a range a tenth of it, on its scale."""
    last, before = (values[0], values[1]) if end == "low" else (values[-1], values[-2])
    if dimension.kind == "choice":
        further = last * last / before if min(values) > 0 else 2 * last - before
    elif dimension.log:
        further = last * (last / before) ** 0.1
    else:
        further = last + (last - before) / 10
    if all(isinstance(value, int) for value in values):
        further = math.floor(further) if end == "low" else math.ceil(further)
    return None if further == last else further


def _takes(trial: SearchedTrial, path: str, value: Any) -> bool:
    """Whether the trial's configuration with this value is a valid one."""
    values: Mapping[str, Any] = trial.settings | {path: value}
    try:
        TrialConfig.from_values(nested(values))
    except ConfigError:
        return False
    return True
