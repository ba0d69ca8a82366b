"""What an answer is worth on groups that no part of it was fitted on.

Choosing members, fitting their vote and fitting what corrects it all learn from images whose classes are known. So all of it is
carried out once for each part of the groups, on the others, and evaluated on that part.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.evaluation.calibration import Calibration, fit_calibration
from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.margin import Margin
from analysis.evaluation.steps import STEPS
from analysis.members.compose import Member, Predicted, possible_members
from analysis.members.price import Limit, Price, price_of
from analysis.members.selection import CHOICES
from analysis.members.trials import Runs, task_words
from analysis.votes import ENSEMBLES
from analysis.votes.folds import others
from analysis.votes.voting import Mean
from trainables.data.targets import Scheme, Task
from trainables.metrics import Metric
from trainables.metrics.evidence import Evidence, evidence
from trainables.record import RunError


@dataclass(frozen=True)
class Candidate:
    """What choosing has to know of a trial beside its predictions."""

    task: Task
    kinds: Mapping[str, str]  # its backbone and its task, in words
    votes: bool = True  # whether it has weights to answer with


@dataclass(frozen=True)
class MemberOptions:
    """Which members are to vote."""

    top: int | None = 3  # None: all there are
    choose: str = "best"  # in CHOICES
    per: str = "backbone"  # what taking turns is by: backbone or task
    alone: bool = False  # members of one trial only, where there are any that cover all targets
    named: tuple[str, ...] = ()  # the trials that members are made of; empty: all
    calibrate: bool = False
    limit: Limit | None = None  # what a member may cost
    margin: Margin | None = None  # a rule that is given, on what they answer or on what the vote does

    def allows(self, trials: Sequence[str], looks: int = 1) -> bool:
        """Whether an answer by these trials, with so many transforms of each image, is within the limit."""
        return self.limit is None or self.limit.allows(trials, looks)


@dataclass(frozen=True, eq=False)
class Known:
    """Images whose classes are known, and what each trial predicts of them."""

    metric: Metric  # that choices are made by
    scheme: Scheme  # of the data
    labels: np.ndarray  # (n, Classes) class ids; of another kind of target what is true of it, (n, tags) or (n,)
    groups: np.ndarray  # (n,)
    predicted: Predicted

    def take(self, rows: np.ndarray) -> "Known":
        """Some of the images."""
        return Known(self.metric, self.scheme, self.labels[rows], self.groups[rows], take(self.predicted, rows))

    def truth(self, part: Scheme) -> np.ndarray:
        """What is true of a part of the scheme: joint classes (n,), tags (n, tags) or numbers (n,)."""
        return self.scheme.joint_of(part.names, self.labels) if self.scheme.kind == "classes" else self.labels


def candidates_of(runs: Runs) -> dict[str, Candidate]:
    """What choosing has to know of each trial, those included that cannot vote any more."""
    return {
        trial.name: Candidate(
            trial.task, {"backbone": trial.record.config.model.backbone, "task": task_words(trial)}, votes=bool(trial.models)
        )
        for trial in (*runs.trials, *runs.unkept)
    }


def known_of(runs: Runs) -> Known:
    """The validation images, and what the records say that each trial predicts of them, those included that cannot vote any more."""
    predicted = {trial.name: trial.valid for trial in (*runs.trials, *runs.unkept)}
    scheme, valid = runs.scheme, runs.valid
    labels = valid.labels if scheme.kind == "classes" else valid.truth(scheme)
    return Known(runs.metric, scheme, labels, valid.groups, predicted)


@dataclass(frozen=True, eq=False)
class Lineup:
    """Members chosen on some images, and what they answer there."""

    members: tuple[Member, ...]  # best first
    answers: np.ndarray  # (members, n, columns), as the vote gets them
    target: np.ndarray  # what is true: (n,), or of tags (n, tags)
    groups: np.ndarray  # (n,)
    calibrations: Mapping[str, Calibration]
    choice: int  # how many members there were to choose from
    metric: Metric
    margin: Margin | None = None

    def fit(self, name: str) -> Pipeline:
        """The members with this vote of ENSEMBLES, fitted on the images they were chosen on."""
        entry, members, calibrations = ENSEMBLES[name], self.members, self.calibrations
        vote = entry(self.answers, self.target, self.groups, self.metric)
        if entry.picks_members and isinstance(vote, Mean):
            picked = [index for index, weight in enumerate(vote.weights) if weight]
            vote, members = Mean(tuple(vote.weights[index] for index in picked)), tuple(members[index] for index in picked)
            used = {trial for member in members for trial in member.trials}
            calibrations = {trial: one for trial, one in calibrations.items() if trial in used}
        return Pipeline(members[0].scheme, members, vote, calibrations=calibrations, margin=self.margin)

    def only(self, members: Sequence[Member]) -> "Lineup":
        """With some of its members, in its order."""
        kept = [index for index, member in enumerate(self.members) if member in members]
        return replace(self, members=tuple(self.members[index] for index in kept), answers=self.answers[kept])


@dataclass(frozen=True, eq=False)
class Nested:
    """The same work done once for each part of the groups, on the others."""

    pipelines: tuple[Pipeline, ...]
    rows: tuple[np.ndarray, ...]  # of the part that each has not seen

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the trials that some pipeline takes."""
        return tuple(dict.fromkeys(name for pipeline in self.pipelines for name in pipeline.trials))

    def answer(self, predicted: Predicted) -> np.ndarray:
        """Scores (n, classes), each row by the pipeline that has not seen its group."""
        parts = [pipeline(take(predicted, rows)) for pipeline, rows in zip(self.pipelines, self.rows, strict=True)]
        return _in_order(parts, self.rows)


def take(predicted: Predicted, rows: np.ndarray) -> Predicted:
    """What is predicted of some of the images."""
    return {name: joint[rows] for name, joint in predicted.items()}


def line_up(member_options: MemberOptions, candidates: Mapping[str, Candidate], known: Known) -> Lineup:
    """The members that these images choose, of trials that can vote; all there are where more are wished for.

    Raises: RunError when the trials' targets overlap so that no choice separates them.
    """
    voting = {name: one for name, one in candidates.items() if one.votes and (not member_options.named or name in member_options.named)}
    predicted, calibrations = known.predicted, {}
    if member_options.calibrate:
        for name, candidate in voting.items():
            labels = known.scheme.ids(candidate.task.scheme.names, known.labels)
            calibrations[name] = fit_calibration(candidate.task, predicted[name], labels)
        predicted = {name: calibration(predicted[name]) for name, calibration in calibrations.items()}
    found = members_of(voting, replace(known, predicted=predicted), member_options)
    answers = np.stack([member.answer(predicted) for member in found])
    target = known.truth(found[0].scheme)
    top = len(found) if member_options.top is None else min(member_options.top, len(found))
    order = CHOICES[member_options.choose](answers, target, kinds_of(found, candidates, member_options.per), top, known.metric)
    members = tuple(found[index] for index in order)
    used = {trial for member in members for trial in member.trials}
    kept = {name: calibration for name, calibration in calibrations.items() if name in used}
    margin, chosen = member_options.margin, answers[order]
    voters = np.stack(margin.before(list(chosen))) if margin else chosen
    return Lineup(members, voters, target, known.groups, kept, len(found), known.metric, margin)


def members_of(candidates: Mapping[str, Candidate], known: Known, member_options: MemberOptions) -> list[Member]:
    """Every sensible member of some trials, within the limit of what one may cost; `alone`: those of one trial, where there are any.

    Raises: RunError naming the cheapest where the limit excludes all.
    """
    schemes = {name: candidate.task.scheme for name, candidate in candidates.items()}
    every = possible_members(schemes, known.predicted, known.truth, known.scheme, known.metric)
    found = [member for member in every if member_options.allows(member.trials)]
    if member_options.limit and not found:
        prices = {str(member): price_of(member_options.limit.prices, member.trials) for member in every}
        cheapest = dict(min(prices.items(), key=key) for key in (_by_time, _by_size))
        words = "; ".join(f"{name}, {price}" for name, price in cheapest.items())
        raise RunError(f"nothing answers within {member_options.limit}. The cheapest: {words}. Allow more, or search smaller models.")
    return [member for member in found if len(member.trials) == 1] or found if member_options.alone else found


def _by_time(one: tuple[str, Price]) -> float:
    return one[1].ms


def _by_size(one: tuple[str, Price]) -> float:
    return one[1].megabytes


def searched(member_options: MemberOptions, candidates: Mapping[str, Candidate], known: Known) -> Iterator[Evidence]:
    """The evidence for every member that the best one was picked from: of all trials, whether they can still vote or not.

    Trials lose their weights because their scores are lower, so those that keep them were picked too.
    """
    for member in members_of(candidates, known, member_options):
        yield evidence(known.metric, known.truth(member.scheme), member.answer(known.predicted), known.groups)


def kinds_of(members: Sequence[Member], candidates: Mapping[str, Candidate], per: str) -> list[str]:
    """What each member is of, such as its trials' backbones."""
    return [" x ".join(dict.fromkeys(candidates[trial].kinds[per] for trial in member.trials)) for member in members]


def fit_nested(
    member_options: MemberOptions,
    votes: Sequence[str],
    candidates: Mapping[str, Candidate],
    known: Known,
    parts: Sequence[np.ndarray],
    fitted: Callable[[int], object] = lambda count: None,
) -> dict[str, Nested]:
    """Each of these votes, fitted for each part on the members that the other groups choose; `fitted` hears of each.

    One line-up is held at a time: where all members may be picked, it has all that all of them answer.
    """
    found: dict[str, list[Pipeline]] = {name: [] for name in votes}
    for rows in parts:
        lineup = line_up(member_options, candidates, known.take(others(rows, len(known.groups))))
        for name in votes:
            found[name].append(lineup.fit(name))
            fitted(1)
    return {name: Nested(tuple(pipelines), tuple(parts)) for name, pipelines in found.items()}


def crossfit_step(
    name: str, answer: np.ndarray, target: np.ndarray, groups: np.ndarray, scheme: Scheme, metric: Metric, parts: Sequence[np.ndarray]
) -> np.ndarray:
    """An answer (n, classes) of images after a step of STEPS that was fitted, for each part, on the answer for the others."""
    found = []
    for rows in parts:
        seen = others(rows, len(target))
        found.append(STEPS[name](answer[seen], target[seen], groups[seen], scheme, metric)(answer[rows]))
    return _in_order(found, parts)


def _in_order(found: Iterable[np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(found))[np.argsort(np.concatenate(rows))]
