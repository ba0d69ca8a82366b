"""Hyperband: several brackets of successive halving, each of which begins to stop trials later than the one before.

Where early scores mislead, the trials of late brackets are compared late or never, at the price of more epochs.

Source: Li et al., Hyperband, JMLR 18 (2018); asynchronous brackets and their number as in Li et al., MLSys 2020, and in Optuna.
"""

import math

from trainables.record import Decision
from tuner.stoppers.asha import AshaSettings, halve, halving_rungs
from tuner.stoppers.history import History, Stopper, TrialReport


def hyperband(settings: AshaSettings, epochs: int) -> Stopper:
    rungs = halving_rungs(settings.grace, settings.reduction, epochs)
    sizes = bracket_sizes(settings.grace, settings.reduction, epochs)

    def decide(history: History, trial: TrialReport) -> Decision | None:
        bracket = bracket_of(trial.number, sizes)
        if trial.epoch not in rungs[bracket:]:
            return None
        others = [score for number, score in history.at(trial.epoch).items() if bracket_of(number, sizes) == bracket]
        return halve("hyperband", trial, others, 1 / settings.reduction)

    return Stopper("hyperband", "Hyperband", epochs, rungs, decide)


def bracket_sizes(grace: int, reduction: float, epochs: int) -> tuple[int, ...]:
    """How many trials in a row go into each bracket, the one that stops earliest first; afterwards it begins again."""
    # In whole powers: a logarithm of 243 to the base 3 is 4.999...
    brackets = 1
    while grace * reduction**brackets <= epochs:
        brackets += 1
    return tuple(math.ceil(brackets * reduction**left / (left + 1)) for left in reversed(range(brackets)))


def bracket_of(number: int, sizes: tuple[int, ...]) -> int:
    """The bracket of a trial; its number alone decides, so a resumed run puts it into the same one."""
    place = number % sum(sizes)
    for bracket, size in enumerate(sizes):
        if place < size:
            return bracket
        place -= size
    raise AssertionError("the place is below the sum of all sizes")
