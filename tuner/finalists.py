"""Finalists: the best configurations of a search, raced over the folds on which it did not validate them.

Fold by fold each one that is left trains on the other folds; after each fold those go that are significantly worse. A configuration that
is left at the end has one model a fold, so every image has trained and every group but the hold-out's has been predicted by a model that
did not see it. What is decided follows from the records alone: a race that resumes decides the same.

Source: racing, Maron and Moore, Hoeffding races, NIPS 1994, with multiple comparisons with the best (see `indistinguishable`) as its test.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from analysis.evaluation.uncertainty import indistinguishable
from trainables.baseline import FIRST
from trainables.data.splits import NO_FOLD
from trainables.data.targets import read_task
from trainables.data.training import Data
from trainables.metrics import BY_NAME, Metric
from trainables.metrics.evidence import Evidence
from trainables.record import Origin, Record, RunCard, RunError, end_record, ranked, read_predictions, read_record, trial_folder
from trainables.seeding import generator
from trainables.storage import Folder
from trainables.validation import evidence_of
from tuner.budget import finalists_within
from tuner.refits import Refit, RefitOptions, changed

DRAWS = 4000  # of the bootstrap, for quantiles that far out


def choose_finalists(records: Iterable[Record], card: RunCard, metric: Metric, number: int) -> list[Record]:
    """The configurations that are raced, best first by their score on validation: the best ones, with the baseline and the best probe
    among them where these ran to their end. Of trials that predict different targets the best for each are among them in any case.

    Raises: RunError where none can be raced.
    """
    able = [one for one in records if one.result.state == "finished"]
    best_first = ranked(able, metric.sign)
    told = card.scheme.told(name for one in able for name in read_task(one.config.task, card.scheme).scheme.names)
    if not best_first or not set(card.predicted.names) <= set(told.names):
        raise RunError(f"no trials of {card.name} that predict all targets have finished, so there are no finalists")
    leading = best_first[: len({one.scored for one in best_first})]
    baseline = [one for one in best_first if one.number == FIRST]
    probe = [one for one in best_first if one.config.model.is_probe][:1]
    first = dict.fromkeys(one.number for one in [*leading, *baseline, *probe, *best_first])
    chosen = set(list(first)[: max(number, len(leading))])
    return [one for one in best_first if one.number in chosen]


def plan_race(finalists: Sequence[Record], folds: int) -> list[Refit]:
    """Every trial of a race, fold by fold. A searched trial stands for its own fold where its weights are kept; last, where not.

    Raises: RunError where there are no other folds.
    """
    searched = {record.config.data.fold for record in finalists}
    own = min(searched) if len(searched) == 1 else NO_FOLD
    others = [fold for fold in range(folds) if fold != own]
    if not others:
        raise RunError("the data of the search has a validation part of its own, so there are no other folds to race on")
    refits = [again(record, fold) for fold in others for record in finalists]
    return refits + [again(record, own) for record in finalists if own != NO_FOLD and not record.has_model]


def again(record: Record, fold: int) -> Refit:
    """The refit of a searched trial whose validation fold is another one."""
    return Refit(
        Origin(record.number, record.best["epoch"], record.best["score"]),
        changed(record, RefitOptions(), seed=record.config.seed, fold=fold),
    )


class Race:
    """What is decided between two folds of a race. Each fold is a stage, in the order in which the refits have them."""

    def __init__(
        self,
        run: Folder,
        card: RunCard,
        refits: Sequence[Refit],
        data: Data,
        *,
        searched: Folder,
        slots: Callable[[], int],
        left: Callable[[], float],
        after: Callable[[int], float],
    ):
        """
        Args:
            searched: the run that the finalists are of.
            slots: trials at a time.
            left: seconds until the race has to be over, and
            after: how many of them are wanted after the race of so many.
        """
        folds = list(dict.fromkeys(refit.config.data.fold for refit in refits))
        self._run = run
        self._card = card
        self._data = data
        self._searched = searched
        self._slots = slots
        self._left = left
        self._after = after
        self._late: set[int] = set()  # searched trials for which there is no time now
        self._origins = [refit.origin for refit in refits]
        # By the searched trial.
        self._predicts = {one.origin.trial: read_task(one.config.task, data.images.scheme).scheme.names for one in refits}
        self.stages = [folds.index(refit.config.data.fold) for refit in refits]

    def close(self, stage: int) -> set[int]:
        """Drop the finalists that are out before a stage: the numbers of their trials from there on, whose records say why.

        Those for which this command has no time are left as they are, for one that has.
        """
        out = self._out(stage)
        self._late |= self._untimely(stage, {*out, *self._late})
        closed = set()
        for number, origin in enumerate(self._origins):
            if self.stages[number] < stage or origin.trial not in {*out, *self._late}:
                continue
            folder = trial_folder(self._run, number)
            if origin.trial in out and read_record(folder).result.state == "interrupted":
                end_record(folder, "stopped", out[origin.trial])
            closed.add(number)
        return closed

    def alone(self) -> bool:
        """Whether one finalist at most is left of those that predict the same, so that nothing is to be decided any more."""
        states: dict[int, set[str]] = {}
        for number, origin in enumerate(self._origins):
            if origin.trial in self._late:
                continue
            states.setdefault(origin.trial, set()).add(read_record(trial_folder(self._run, number)).result.state)
        left = [self._predicts[trial] for trial, found in states.items() if not found & {"stopped", "failed"}]
        return len(set(left)) == len(left)

    def _out(self, stage: int) -> dict[int, str]:
        """Why finalists, by the searched trial, are out before a stage, whatever the time."""
        out: dict[int, str] = {}
        for before in range(1, stage + 1):
            out |= self._dropped(before, out)
        return out

    def _records(self, stage: int, out: Collection[int]) -> dict[int, list[Record]]:
        """What those that are not out have trained before a stage, by the searched trial."""
        found: dict[int, list[Record]] = {origin.trial: [] for origin in self._origins if origin.trial not in out}
        for number, origin in enumerate(self._origins):
            if self.stages[number] < stage and origin.trial not in out:
                found[origin.trial].append(read_record(trial_folder(self._run, number)))
        return found

    def _dropped(self, stage: int, out: Collection[int]) -> dict[int, str]:
        found = self._records(stage, out)
        dropped = {
            trial: record.result.reason if record.result.state == "stopped" else f"fold {record.config.data.fold}: {record.result.reason}"
            for trial, records in found.items()
            for record in records
            if record.result.state in ("stopped", "failed")
        }
        whole = {trial: records for trial, records in found.items() if records and all(one.result.state == "finished" for one in records)}
        for predicts in dict.fromkeys(map(self._predicts.__getitem__, whole)):
            dropped |= self._worse(stage, {trial: records for trial, records in whole.items() if self._predicts[trial] == predicts})
        return dropped

    def _worse(self, stage: int, whole: Mapping[int, Sequence[Record]]) -> dict[int, str]:
        """Of finalists that predict the same, those that are significantly worse than the best, and what is said of them."""
        if len(whole) < 2:
            return {}
        answers = [
            evidence_of([(one.config, read_predictions(one.folder)) for one in records], self._data.images, self._data.split)
            for records in whole.values()
        ]
        left = who_stays(answers, self._card.seed, stage, max(self.stages))
        sign = answers[0].metric.sign
        best = list(whole)[int(np.argmax([sign * answer.score() for answer in answers]))]
        words = f"left after {_folds(stage)}: significantly worse than trial {best}"
        return {trial: words for trial, stays in zip(whole, left, strict=True) if not stays}

    def _untimely(self, stage: int, out: Collection[int]) -> set[int]:
        """For whom there is no time any more, the worst first. Before the first stage that may be all, later one goes on in any case."""
        sign, stages = BY_NAME[self._card.metric].sign, max(self.stages) + 1 - stage
        found = self._records(stage, out)
        origins = {origin.trial: origin for origin in self._origins}
        scores = {trial: [origins[trial].score, *(one.best["score"] for one in records if one.best)] for trial, records in found.items()}
        ranked_alike = sorted(found, key=lambda trial: (-sign * float(np.mean(scores[trial])), trial))
        alike = [
            [one for one in ranked_alike if self._predicts[one] == kind] for kind in dict.fromkeys(map(self._predicts.get, ranked_alike))
        ]
        best_first = [one for turn in zip_longest(*alike) for one in turn if one is not None]
        seconds = [read_record(trial_folder(self._searched, trial)).seconds for trial in best_first]
        there = finalists_within(self._left(), stages, seconds, self._slots(), self._after)
        # An answer takes one of each kind.
        least = len(alike) if stage or there >= len(alike) else 0
        return {*best_first[max(there, least) if least else 0 :]}


def who_stays(answers: Sequence[Evidence], seed: int, stage: int, looks: int) -> np.ndarray:
    """Which finalists (finalists,) are not significantly worse than the best, before a stage of a race that looks so many times."""
    # Bonferroni's share of the error for each time that one looks.
    return indistinguishable(answers, generator(seed, "race", stage), DRAWS, 1 - 0.05 / (looks or 1))


def _folds(count: int) -> str:
    return f"{count} fold" if count == 1 else f"{count} folds"
