"""A time budget is for the answer: what of it the search gets, and what is kept for its finalists and the vote.

How long a trial takes is measured by those of the search; before one has trained an epoch, half of the budget is kept.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.board import Board, Row, clock

MOST = 0.5  # share of the budget that finalists may take from the search; a single one may take a little more
ALONE = 0.65
VOTE = 0.05  # share of the budget that the vote is expected to take, and
LEAST = 20.0  # seconds that it takes at least
BEGIN = 15.0  # seconds until the finalists' first trial trains


@dataclass(frozen=True)
class Need:
    """What follows the search: how many finalists there is time for, and how long all that takes."""

    finalists: int
    seconds: float


def vote_seconds(budget: float) -> float:
    """How much of a budget of so many seconds the vote gets."""
    return max(LEAST, VOTE * budget)


def race_seconds(finalists: int, folds: int, trial: float, slots: int) -> float:
    """How long a race takes at most.

    Args:
        folds: that each finalist trains on.
        trial: seconds of one.
        slots: trials at a time.
    """
    if not (finalists and folds):
        return 0.0
    # A single one waits for no other between two folds.
    waves = math.ceil(folds / slots) if finalists == 1 else folds * math.ceil(finalists / slots)
    return BEGIN + waves * trial


def finalists_within(seconds: float, most: int, folds: int, trial: float, slots: int) -> int:
    """The largest number of finalists whose race is over within so many seconds, at most `most`."""
    return max((number for number in range(most + 1) if race_seconds(number, folds, trial, slots) <= seconds), default=0)


def needed(budget: float, most: int, folds: int, trial: float | None, slots: int, *, vote: bool) -> Need:
    """What is kept of a budget of so many seconds for what follows the search.

    Args:
        most: finalists that are wanted.
        trial: seconds of one, None: not known yet.
        vote: whether the answer is to be given too.
    """
    last = vote_seconds(budget) if vote else 0.0
    if not most or not folds:
        return Need(0, last)
    if trial is None:
        return Need(most, last + MOST * budget)
    number = finalists_within(MOST * budget, most, folds, trial, slots) or finalists_within(ALONE * budget, 1, folds, trial, slots)
    return Need(number, last + race_seconds(number, folds, trial, slots))


def seconds_of_a_trial(board: Board) -> float | None:
    """How long the slowest of the best trials takes to its end, at the pace measured so far; None before there is one."""

    def order(row: Row) -> float:
        return 0.0 if row.best is None else -board.metric.sign * row.best

    def whole(row: Row) -> float:
        # One that ran to its end may have had fewer epochs to train.
        return row.seconds if row.state == "finished" and not row.earlier else row.seconds / row.trained * board.epochs

    measured = sorted((row for row in board.rows.values() if row.trained and row.seconds), key=order)
    return max(map(whole, measured[:4]), default=None)


def reserve(board: Board, budget: float, most: int, folds: int, slots: Callable[[], int], *, vote: bool) -> Callable[[], float]:
    """The seconds that are kept for what follows the search, as they are known whenever one asks."""
    return lambda: needed(budget, most, folds, seconds_of_a_trial(board), slots(), vote=vote).seconds


def plan_words(budget: float, most: int, folds: int, *, vote: bool) -> str:
    """How a budget is divided, in a sentence; nothing where the search has it all."""
    after = [f"{most} finalists on {folds} other folds"] * bool(most and folds) + ["the vote"] * vote
    if not after:
        return ""
    search = budget - needed(budget, most, folds, None, 1, vote=vote).seconds
    return f"Of {clock(budget)} the search gets {clock(search)} or more: what {' and '.join(after)} do not need, as measured epochs show."
