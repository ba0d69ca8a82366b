"""The learning rate at every optimizer step: a linear warm-up to the peak, then a curve by name.

The loop sets `group["lr"] = schedule.lr(step)` before each optimizer step (counted from 0 over the whole trial), calls
`schedule.end_epoch(score)` after each validation, and keeps `schedule.state()` with whatever else continues a trial.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainables.choices import choose
from trainables.config import ScheduleConfig


@dataclass(frozen=True)
class Span:
    """The optimizer steps of a trial and the learning rate to climb to."""

    peak: float
    warmup: int  # steps below the peak; fewer than total
    per_epoch: int
    total: int


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
        """Plain values that `load_state` takes back when a trial goes on."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


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


def _step(config: ScheduleConfig, span: Span) -> Schedule:
    factor, every = config.factor, config.every * span.per_epoch
    return Schedule(span, lambda step: factor ** (step // every))


def _cosine(config: ScheduleConfig, span: Span) -> Schedule:
    """Source: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts. 0 is reached after the last step, so none is wasted."""

    def share(step: int) -> float:
        progress = max(0, step - span.warmup) / (span.total - span.warmup)
        return (1 + math.cos(math.pi * progress)) / 2

    return Schedule(span, share)


SCHEDULES: dict[str, Callable[[ScheduleConfig, Span], Schedule]] = {
    "constant": lambda config, span: Schedule(span, lambda step: 1.0),
    "step": _step,
    "cosine": _cosine,
    "plateau": lambda config, span: Plateau(span, config.factor, config.patience),
}


def build_schedule(config: ScheduleConfig, peak: float, steps_per_epoch: int, epochs: int) -> Schedule:
    """The schedule that the section `schedule` asks for.

    Args:
        peak: the learning rate at the end of the warm-up.
        steps_per_epoch: optimizer steps, at least 1; fewer than batches where gradients accumulate.
    Raises: ConfigError for an unknown name.
    """
    total = steps_per_epoch * epochs
    warmup = min(round(config.warmup * total), total - 1)
    return choose(SCHEDULES, config.name, "schedule/name")(config, Span(peak, warmup, steps_per_epoch, total))
