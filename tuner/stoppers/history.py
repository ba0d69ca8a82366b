"""What a pruner knows when it decides, and what it is: a value with one function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from trainables.record import Decision
from trainables.registry import Count, Section, setting

Reduction = Annotated[float, Field(gt=1)]


@dataclass(frozen=True)
class TrialReport:
    """One report of a trial."""

    number: int
    epoch: int
    score: float  # higher is better, whatever the metric's direction
    last: bool  # whether the trial ends here by itself


@dataclass
class History:
    """The reports of all trials so far, each once."""

    scores: dict[int, dict[int, float]] = field(default_factory=dict)  # epoch -> trial -> score, higher is better
    finished: set[int] = field(default_factory=set)  # trials that came to their own end

    def add(self, reported: TrialReport) -> None:
        self.scores.setdefault(reported.epoch, {})[reported.number] = reported.score
        if reported.last:
            self.finished.add(reported.number)

    def has(self, number: int, epoch: int) -> bool:
        return number in self.at(epoch)

    def at(self, epoch: int) -> Mapping[int, float]:
        """Scores at an epoch by trial, in the order in which they were reported."""
        return self.scores.get(epoch, {})

    def best(self, number: int, epoch: int) -> float:
        """A trial's best score up to an epoch; minus infinity where there is none."""
        return max((scores[number] for at, scores in self.scores.items() if at <= epoch and number in scores), default=float("-inf"))


# The decision on a trial that has just reported, given all reports before it. None: no decision at this epoch.
# Its scores are those of the reports, higher is better.
Decide = Callable[[History, TrialReport], Decision | None]


@dataclass(frozen=True)
class Stopper:
    """A pruner for one run."""

    name: str  # in STOPPERS
    title: str  # begins the sentence that says why a trial was stopped
    epochs: int  # the run's maximum; trials of other schedules are not compared
    rungs: tuple[int, ...]  # epochs at which it is measured how well early scores predict the final ones
    decide: Decide


class GraceSettings(Section):
    """What every pruner reads."""

    grace: Count = setting("epochs before a trial may be stopped", 1)
