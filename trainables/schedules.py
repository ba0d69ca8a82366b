"""The learning rate at every optimizer step: a linear warm-up to the peak, then a curve by name.

The loop sets `group["lr"] = schedule.lr(step)` before each optimizer step (counted from 0 over the whole trial), calls
`schedule.end_epoch(score)` after each validation, and keeps `schedule.state()` with whatever else continues a trial.

Drops of `step`, `multi_step` and `plateau` come at their epochs, or shares of the trial, whatever the warm-up; all other curves begin
where it ends. `cyclic` and `one_cycle` climb by themselves: of them, the warm-up is the share of each cycle that climbs, and 0 stands
for the usual one (a half, and 0.3). Curves that fall to 0 or to the floor would reach it one step after the last, and those that climb
begin one step above it, so no step is wasted.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, field_validator

from trainables.registry import Count, Entry, Positive, Registry, Section, ascending, choose, setting

Factor = Annotated[float, Field(gt=0, lt=1)]
DROP = "factor of the learning rate at each drop"


class ScheduleConfig(Section):
    """The learning rate over the trial's steps."""

    name: str = setting("the curve", "cosine")
    warmup: Annotated[float, Field(ge=0, lt=1)] = setting(
        "share of all steps in which the learning rate rises to its peak; cyclic, one_cycle: share of a cycle, 0 means 0.5 and 0.3", 0.0
    )


class StepSettings(ScheduleConfig):
    every: Count = setting("epochs between two drops", 5)
    factor: Factor = setting(DROP, 0.1)


class MultiStepSettings(ScheduleConfig):
    milestones: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1)] = setting(
        "shares of the trial after which the learning rate drops", (0.5, 0.75)
    )
    factor: Factor = setting(DROP, 0.1)

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        return ascending(milestones)


class ExponentialSettings(ScheduleConfig):
    factor: Factor = setting("factor of the learning rate per epoch", 0.1)


class FloorSettings(ScheduleConfig):
    floor: Annotated[float, Field(ge=0, lt=1)] = setting("lowest learning rate, as a share of the peak", 0.0)


class PolySettings(FloorSettings):
    power: Positive = setting("1 is a straight line", 1.0)


class CyclesSettings(FloorSettings):
    cycles: Count = setting("number of cycles", 2)
    decay: Annotated[float, Field(gt=0, le=1)] = setting("peak of each cycle, as a share of the one before", 1.0)


class PlateauSettings(ScheduleConfig):
    """Needs a validation split, as it depends on scores."""

    factor: Factor = setting(DROP, 0.1)
    patience: Annotated[int, Field(ge=0)] = setting("epochs without a better score before a drop", 2)


@dataclass(frozen=True)
class Span:
    """The optimizer steps of a trial and the learning rate to climb to."""

    peak: float
    warmup: int  # steps below the peak; fewer than total
    per_epoch: int
    total: int

    def after_warmup(self, step: int) -> int:
        """Steps since the first one at the peak."""
        return max(0, step - self.warmup)


class Schedule:
    """A learning rate that depends on nothing but the step."""

    def __init__(self, span: Span, share: Callable[[int], float]):
        self.span = span
        self.share = share  # of the peak, at a step, were there no warm-up

    def lr(self, step: int) -> float:
        """The learning rate of the optimizer step `step`, the first being 0."""
        climb = min(1.0, (step + 1) / (self.span.warmup + 1))  # + 1, so that no step is spent at 0
        return self.span.peak * climb * self.share(step)

    def end_epoch(self, score: float) -> None:
        """Take note of an epoch's validation score; higher is better."""

    def state(self) -> dict[str, Any]:
        """Plain values that `load_state` takes back when a trial is resumed."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state` returned."""


class Plateau(Schedule):
    """Multiplies the peak by `factor` whenever more than `patience` epochs in a row bring no better score."""

    def __init__(self, span: Span, factor: float, patience: int):
        super().__init__(span, lambda step: factor**self.drops)
        self.patience = patience
        self.best = -math.inf
        self.waited = 0
        self.drops = 0

    def end_epoch(self, score: float) -> None:
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.drops, self.waited = self.drops + 1, 0

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "drops": self.drops}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.drops = state["best"], state["waited"], state["drops"]


def _step(config: StepSettings, span: Span) -> Schedule:
    factor, every = config.factor, config.every * span.per_epoch
    return Schedule(span, lambda step: factor ** (step // every))


def _multi_step(config: MultiStepSettings, span: Span) -> Schedule:
    factor = config.factor
    drops = [max(1, round(share * span.total)) for share in config.milestones]
    return Schedule(span, lambda step: factor ** bisect_right(drops, step))


def _exponential(config: ExponentialSettings, span: Span) -> Schedule:
    """Falls with every step, by `factor` an epoch."""
    factor = config.factor
    return Schedule(span, lambda step: factor ** (span.after_warmup(step) / span.per_epoch))


def _poly(config: PolySettings, span: Span) -> Schedule:
    """Source: Liu et al., ParseNet, 2015."""
    power = config.power
    return _cycles(span, lambda height: height**power, floor=config.floor)


def _cosine(config: FloorSettings, span: Span) -> Schedule:
    """Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, without restarts."""
    return _cycles(span, _half_wave, floor=config.floor)


def _restarts(config: CyclesSettings, span: Span) -> Schedule:
    """Source: as of cosine; peaks that decay are a custom of its users."""
    return _cycles(span, _half_wave, floor=config.floor, count=config.cycles, decay=config.decay)


def _cyclic(config: CyclesSettings, span: Span) -> Schedule:
    """Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017: triangular."""
    climb, whole = config.warmup or 0.5, replace(span, warmup=0)
    return _cycles(whole, lambda height: height, floor=config.floor, count=config.cycles, decay=config.decay, climb=climb)


def _one_cycle(config: FloorSettings, span: Span) -> Schedule:
    """Source: Smith and Topin, Super-Convergence, 2018; up and down by cosine, as torch and fastai do."""
    climb, whole = config.warmup or 0.3, replace(span, warmup=0)
    return _cycles(whole, _half_wave, floor=config.floor, climb=climb)


def _cycles(
    span: Span, shape: Callable[[float], float], *, floor: float, count: int = 1, decay: float = 1.0, climb: float = 0.0
) -> Schedule:
    """The steps after the warm-up in nearly equal cycles, each of which climbs, reaches its peak and falls.

    Args:
        shape: how high the curve is where a straight line would be at that height; maps 0 to 0 and 1 to 1.
        floor: share of the peak that stands for height 0.
        count: cycles; of more than there are steps, each has one step.
        decay: peak of each cycle, as a share of the one before, but never below the floor.
        climb: share of each cycle that lies before its peak.
    """
    steps = span.total - span.warmup
    count = min(count, steps)
    starts = [number * steps // count for number in range(count + 1)]

    def share(step: int) -> float:
        after = span.after_warmup(step)
        number = min(bisect_right(starts, after), count) - 1
        length = starts[number + 1] - starts[number]
        top = max(decay**number, floor)
        return floor + (top - floor) * shape(_triangle(after - starts[number], length, min(round(climb * length), length - 1)))

    return Schedule(span, share)


def _triangle(step: int, length: int, peak: int) -> float:
    """A straight line from 0 one step before the first up to 1 at the step `peak`, and down to 0 one step after the last."""
    return (step + 1) / (peak + 1) if step < peak else (length - step) / (length - peak)


def _half_wave(height: float) -> float:
    return (1 - math.cos(math.pi * height)) / 2


SCHEDULES: Registry[Entry[ScheduleConfig]] = Registry(
    {  # settings, Span -> Schedule
        "constant": Entry(ScheduleConfig, lambda config, span: Schedule(span, lambda step: 1.0)),
        "step": Entry(StepSettings, _step),
        "multi_step": Entry(MultiStepSettings, _multi_step),
        "exponential": Entry(ExponentialSettings, _exponential),
        "poly": Entry(PolySettings, _poly),
        "cosine": Entry(FloorSettings, _cosine),
        "restarts": Entry(CyclesSettings, _restarts),
        "cyclic": Entry(CyclesSettings, _cyclic),
        "one_cycle": Entry(FloorSettings, _one_cycle),
        "plateau": Entry(PlateauSettings, lambda config, span: Plateau(span, config.factor, config.patience)),
    },
    Entry,
    ScheduleConfig,
)


def build_schedule(config: ScheduleConfig, peak: float, steps_per_epoch: int, epochs: int) -> Schedule:
    """The schedule that the section `schedule` asks for.

    Args:
        peak: the learning rate at the end of the warm-up.
        steps_per_epoch: optimizer steps, at least 1; fewer than batches where gradients accumulate.
    Raises: ConfigError for an unknown name.
    """
    total = steps_per_epoch * epochs
    warmup = min(round(config.warmup * total), total - 1)
    return choose(SCHEDULES, config.name, "schedule/name").build(config, Span(peak, warmup, steps_per_epoch, total))
