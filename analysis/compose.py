"""Members: trials that together cover every attribute once, so that specialists stand beside trials that predict all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.trials import Runs, Trial
from trainables.data.labels import Scheme, compose
from trainables.record import RunError

Names = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Member:
    """One voter: trials whose attributes part its scheme."""

    trials: tuple[Trial, ...]
    scheme: Scheme
    valid: np.ndarray  # (n, classes of the scheme); rows as in Runs.valid
    score: float  # macro F1 on validation, over the scheme's classes

    def __str__(self) -> str:
        return " x ".join(map(str, self.trials))


def members(runs: Runs) -> list[Member]:
    """Every way to part the covered attributes by the trials there are; the r-th best trials of all parts form its r-th member.

    The members' scheme holds the attributes that some trial covers, which may be fewer than the data has.
    Raises: RunError when the trials' attributes overlap in a way that no choice of them parts.
    """
    ranked: dict[Names, list[Trial]] = {}
    for trial in sorted(runs.trials, key=lambda trial: -trial.score):
        ranked.setdefault(trial.task.scheme.names, []).append(trial)
    scheme = runs.scheme.part(tuple(name for names in ranked for name in names))
    ways = list(partitions(scheme.names, list(ranked)))
    if not ways:
        there = "; ".join(" and ".join(names) for names in ranked)
        raise RunError(
            f"the trials predict {there}, and no choice of these holds each of {', '.join(scheme.names)} once. "
            "Leave a run out, or add one with a task for what is missing."
        )
    chosen = (trials for way in ways for trials in zip(*(ranked[names] for names in way), strict=False))
    return [_member(runs, scheme, trials) for trials in chosen]


def partitions(wanted: Names, parts: Sequence[Names]) -> Iterator[tuple[Names, ...]]:
    """Every choice of parts that holds each wanted name exactly once, ordered by their first names."""
    if not wanted:
        yield ()
        return
    for part in parts:
        if wanted[0] in part and set(part) <= set(wanted):
            rest = tuple(name for name in wanted if name not in part)
            yield from ((part, *others) for others in partitions(rest, parts))


def combine(scheme: Scheme, trials: Sequence[Trial], probabilities: Mapping[Trial, np.ndarray]) -> np.ndarray:
    """Joint probabilities (n, classes) of a member's trials, taken as independent, from those of each trial."""
    return compose(scheme, [(trial.task.scheme, probabilities[trial]) for trial in trials])


def _member(runs: Runs, scheme: Scheme, trials: tuple[Trial, ...]) -> Member:
    valid = combine(scheme, trials, {trial: trial.valid for trial in trials})
    return Member(trials, scheme, valid, runs.valid.macro_f1(scheme, valid))
