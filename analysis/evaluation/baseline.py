"""What the answer gains over the baseline, which one would have trained without searching."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.evaluation.decide import Decision
from analysis.evaluation.uncertainty import Gain, paired_gain
from analysis.members.compose import Member, possible_members
from analysis.members.trials import Runs, Trial
from search_spaces.errors import UserError
from search_spaces.read import read_space
from trainables.baseline import baseline_of, is_baseline
from trainables.data.targets import Scheme
from trainables.metrics.evidence import evidence
from trainables.record import DAMAGE, SPACE, RunCard, searched_run
from trainables.seeding import generator
from trainables.storage import Folder, local_file


@dataclass(frozen=True)
class Baseline:
    """Its trial, and what the answer gains over it."""

    trial: str  # or the member of several
    score: float  # by the run's metric, on validation
    gain: Gain  # of the answer, on validation groups that it was not fitted on


def find_baseline(runs: Runs, decision: Decision, seed: int) -> Baseline | None:
    """The first trial, with weights or without, that is the baseline of a run and predicts what the answer does; where none predicts all,
    what the baselines for each target answer together; None without these.

    One that left a race is compared on the images of its own fold.
    """
    scheme = decision.scheme
    known = [trial for trial in (*runs.trials, *runs.unkept) if set(scheme.names) <= set(trial.task.scheme.names)]
    everybody = np.arange(len(runs.valid.ids))
    started = [(trial, everybody) for trial in known if _is_first(trial, runs)]
    started += [(trial, _validated(trial, runs)) for trial in runs.first if set(scheme.names) <= set(trial.task.scheme.names)]
    if started:
        trial, rows = min(started, key=lambda pair: (-len(pair[1]), pair[0].record.number))
        name, own = trial.name, trial.task.scheme.marginal(scheme.names, trial.valid)
    else:
        trials = _first_of_each(runs)
        member = _composed(trials, runs, scheme)
        if member is None:
            return None
        name, own, rows = str(member), member.answer({trial.name: trial.valid for trial in trials}), everybody
    truth = runs.valid.truth(scheme)[rows]
    answer, baseline = (evidence(runs.metric, truth, one, runs.valid.groups[rows]) for one in (decision.nested[rows], own))
    return Baseline(name, baseline.score(), paired_gain(answer, baseline, generator(seed, "bootstrap")))


def _first_of_each(runs: Runs) -> list[Trial]:
    """For each that trials predict the first that has the baseline's values but for its task."""
    begun = [baseline_of_run(folder, card) for folder, card in zip(runs.folders, runs.cards, strict=True)]
    rests = [{path: value for path, value in one.items() if path != "task"} for one in begun if "task" in one]
    found: dict[tuple[str, ...], Trial] = {}
    for trial in sorted((*runs.trials, *runs.unkept), key=lambda trial: trial.record.number):
        config = trial.record.config
        if any(is_baseline(config, rest) or not (rest or config.model.is_probe) for rest in rests):
            found.setdefault(trial.task.scheme.names, trial)
    return list(found.values())


def _composed(trials: Sequence[Trial], runs: Runs, scheme: Scheme) -> Member | None:
    """What these trials answer together; None where that is not what the scheme holds."""
    schemes, predicted = {one.name: one.task.scheme for one in trials}, {one.name: one.valid for one in trials}
    members = possible_members(schemes, predicted, runs.valid.truth, runs.scheme, runs.metric)
    return next((one for one in members if one.scheme == scheme and not one.advisors), None)


def _validated(trial: Trial, runs: Runs) -> np.ndarray:
    """The rows of the images of the fold that validated a trial."""
    return np.flatnonzero(runs.valid.parts == f"fold {trial.record.config.data.fold}")


def _is_first(trial: Trial, runs: Runs) -> bool:
    values = (baseline_of_run(folder, card) for folder, card in zip(runs.folders, runs.cards, strict=True))
    return any(is_baseline(trial.record.config, one) for one in values)


def baseline_of_run(folder: Folder, card: RunCard) -> Mapping[str, Any]:
    """The searched values, by path, of the baseline of a run's space; none where there is no space any more."""
    run = searched_run(folder, card) if card.refit_of else folder
    try:
        with local_file(run / SPACE) as file:
            return baseline_of(read_space(file))
    except (UserError, *DAMAGE):
        return {}
