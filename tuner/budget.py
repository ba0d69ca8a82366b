"""A time budget is for the answer: what of it the search gets, and what is kept for its finalists and the vote.

How long a trial takes is measured by those of the search; before one has trained an epoch, half of the budget is kept.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.evaluation.novelty import KEPT
from trainables.record import Record
from tuner.board import Board, Row, clock

MOST = 0.5  # share of the budget that finalists may take from the search; a single one may take a little more
ALONE = 0.65
VOTE = 0.05  # share of the budget that the vote is expected to take, and
LEAST = 20.0  # seconds that it takes at least
BEGIN = 15.0  # seconds until the finalists' first trial trains
FORWARD = 3.0  # images that are predicted in the time in which one is trained
NOTICED = 0.25  # share of the budget that may go before the search without a word
BEST = 4  # trials whose pace counts, as they are those that follow
VOTERS, LOOKS = 3, 6  # models that answer, and transforms of test-time augmentation that are tried


@dataclass(frozen=True)
class Need:
    """What follows the search: how many finalists there is time for, and how long all that takes."""

    finalists: int
    seconds: float


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


def finalists_within(
    seconds: float, folds: int, trials: Sequence[float], slots: int, after: Callable[[int], float] = lambda finalists: 0.0
) -> int:
    """The largest number of finalists whose race is over within so many seconds.

    Args:
        trials: seconds of a trial of each finalist, the best finalist first.
        after: seconds that are wanted after the race of so many.
    """
    numbers = range(len(trials) + 1)
    takes = (race_seconds(number, folds, max(trials[:number], default=0.0), slots) + after(number) for number in numbers)
    return max((number for number, needs in zip(numbers, takes, strict=True) if needs <= seconds), default=0)


@dataclass(frozen=True)
class Division:
    """How a time budget is divided."""

    budget: float  # seconds, from the start of the command
    finalists: int  # that are wanted
    folds: int  # that each of them trains on
    predictions: int | None  # by each voter, where trials of the search vote; None: no vote is asked for
    after_race: int = 0  # likewise where finalists vote, which have a model a fold and are validated on every fold

    def vote(self, prediction: float, *, raced: int) -> float:
        """Seconds for the vote, where one image takes so many to predict, over so many finalists, or the search's trials where none is."""
        if self.predictions is None:
            return 0.0
        predictions = self.after_race * min(raced, VOTERS) if raced else self.predictions * VOTERS
        return max(LEAST, VOTE * self.budget) + predictions * prediction

    def need(self, trial: float | None, slots: int, prediction: float = 0.0) -> Need:
        """What is kept for what follows the search.

        Args:
            trial: seconds of one to its end, None: not known yet.
            slots: trials at a time.
            prediction: seconds of one image.
        """
        if not self.finalists or not self.folds:
            return Need(0, self.vote(prediction, raced=0))
        if trial is None:
            return Need(self.finalists, self.vote(prediction, raced=self.finalists) + MOST * self.budget)
        several = finalists_within(MOST * self.budget, self.folds, [trial] * self.finalists, slots)
        number = several or finalists_within(ALONE * self.budget, self.folds, [trial], slots)
        return Need(number, self.vote(prediction, raced=number) + race_seconds(number, self.folds, trial, slots))

    def reserve(self, board: Board, slots: Callable[[], int]) -> Callable[[], float]:
        """The seconds that are kept for what follows the search, as they are known whenever one asks."""

        def kept() -> float:
            trial = seconds_of_a_trial(board)
            after = self.need(trial, slots(), seconds_of_an_image(board) / FORWARD / slots()).seconds
            # Trials that run are stopped at the end of their epoch, which may have just begun.
            return after + (trial or 0.0) / board.epochs if after else 0.0

        return kept

    def words(self, spent: float) -> str:
        """How the budget is divided, in a sentence or two; nothing where the search has all that is left.

        Args:
            spent: seconds of it that went before the search.
        """
        said = []
        if spent > NOTICED * self.budget:
            went = (
                f"{clock(spent)} of {clock(self.budget)} went before the search, mostly to reading images, which are kept as they were read"
            )
            said.append(f"{went}: the next search on them has that time.")
        after = [f"{self.finalists} finalists on {self.folds} other folds"] * bool(self.finalists and self.folds)
        after += ["the vote"] * (self.predictions is not None)
        if after:
            search = clock(max(0.0, self.budget - spent - self.need(None, 1).seconds))
            rest = f"what {' and '.join(after)} do not need, as measured epochs show"
            said.append(f"Of {clock(self.budget)} the search gets about {search} or more: {rest}.")
        return " ".join(said)


def predictions_of(validated: int, others: int, models: int) -> int:
    """How many predictions a vote makes by each voter.

    Args:
        validated: images that choose it, with transforms of test-time augmentation.
        others: images that it answers.
        models: of a voter, one or one a fold; of the images that choose it, one predicts each.
    """
    return LOOKS * validated + models * others + min(validated, KEPT) + KEPT


def seconds_of_a_trial(board: Board) -> float | None:
    """How long the slowest of the best trials takes to its end, at the pace measured so far; None before there is one."""

    def whole(row: Row) -> float:
        # One that ran to its end may have had fewer epochs to train.
        return row.seconds if row.state == "finished" and not row.earlier else row.seconds / row.trained * board.epochs

    measured = [row for row in board.best_first() if row.trained and row.seconds]
    return max(map(whole, measured[:BEST]), default=None)


def seconds_of_an_image(board: Board) -> float:
    """How long the slowest of the best trials trains on an image; 0 before there is one."""
    measured = [row for row in board.best_first() if row.images and row.seconds]
    return max((row.seconds / row.images for row in measured[:BEST]), default=0.0)


def seconds_of_a_prediction(best_first: Sequence[Record]) -> float:
    """The same of trials that have ended: how long an image takes to predict on all cores of this machine."""

    def seconds(record: Record) -> float:
        images = sum(report["photos"] for report in record.reports)
        return record.seconds / max(images, 1) / FORWARD * min(1.0, record.result.threads / (os.cpu_count() or 1))

    return max(map(seconds, best_first[:BEST]), default=0.0)
