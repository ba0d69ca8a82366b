"""Members: trials that together answer for every target, so that specialists stand beside trials that predict all.

A specialist may answer a question about a target, such as `age<30`: it stands in members whose other parts tell the rest.

A member is a recipe without numbers; what it answers follows from what its trials predict, of whichever images.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from analysis.votes.arrays import Array, library, ratio
from trainables.data.targets import Scheme, compose
from trainables.metrics import Metric

Names = tuple[str, ...]
Predicted = Mapping[str, Array]  # by a trial's name: joint probabilities (images, classes of its scheme)


@dataclass(frozen=True)
class Part:
    """What one trial says inside a member."""

    trial: str  # its name
    scheme: Scheme  # of everything that the trial predicts
    names: Names  # the targets that it is asked for, some or all of them

    def answer(self, predicted: Predicted) -> Array:
        """Joint probabilities (images, classes) of the targets asked for."""
        return self.scheme.marginal(self.names, predicted[self.trial])

    def __str__(self) -> str:
        asked = "" if self.names == self.scheme.names else f" ({', '.join(self.names)})"
        return self.trial + asked


@dataclass(frozen=True)
class Member:
    """One member: parts that together tell each target of its scheme, see `trainables.data.targets.compose`."""

    scheme: Scheme
    parts: tuple[Part, ...]
    advisors: tuple[Part, ...] = ()  # of one part of the scheme each, heard where they are more confident than the parts

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The parts, then the advisors."""
        return (*self.parts, *self.advisors)

    @property
    def trials(self) -> Names:
        """Names of the trials it takes."""
        return tuple(dict.fromkeys(part.trial for part in self.all_parts))

    def answer(self, predicted: Predicted) -> Array:
        """Joint probabilities (images, classes of the scheme), float64."""
        answer = compose(self.scheme, [(self.scheme.part(part.names), part.answer(predicted)) for part in self.parts])
        for advisor in self.advisors:
            answer = advised(self.scheme, answer, advisor.names, advisor.answer(predicted))
        return answer

    def __str__(self) -> str:
        advice = f" advised by {', '.join(map(str, self.advisors))}" if self.advisors else ""
        return " x ".join(map(str, self.parts)) + advice


def advised(scheme: Scheme, answer: Array, names: Names, advice: Array) -> Array:
    """The answer (images, classes) with the advice (images, classes of these targets) in place of its own marginal, for those images
    on which the advice is more confident of its most probable class than that marginal is of its own.

    What the answer says of the other targets, given these, stays as it is.

    Source: the probability kinematics of Jeffrey, The Logic of Decision, 1965.
    """
    xp = library(answer)
    own = scheme.marginal(names, answer)
    surer = xp.amax(advice, axis=1, keepdims=True) > xp.amax(own, axis=1, keepdims=True)
    index = scheme.joint_of(names, scheme.split(np.arange(scheme.classes))).tolist()
    changed = advice[:, index] * ratio(answer, own[:, index], 0.0)
    # Where the advice has all its weight on what the answer holds for impossible, nothing is left to share out.
    return xp.where(surer, ratio(changed, changed.sum(axis=1, keepdims=True), answer), answer)


def possible_members(
    trials: Mapping[str, Scheme], predicted: Predicted, truth: Callable[[Scheme], np.ndarray], scheme: Scheme, metric: Metric
) -> list[Member]:
    """Every sensible way to answer for the targets that some trial covers, ranked by what the trials are worth on these images.

    These are: the r-th best trials of every way to divide the targets by the tasks there are, which holds each trial that covers all;
    for each target the r-th best of all trials that cover it, which need not be the same trial for two of them; and each trial that
    covers all, advised by the best specialist for one part, for each part that there are specialists for.

    Args:
        trials: what each predicts.
        truth: what is true of the targets of a part of the data's scheme.
        scheme: of the data.
        metric: that the trials are ranked by.
    """
    covered = scheme.told(name for own in trials.values() for name in own.names)
    asked = {(name,) for own in trials.values() for name in own.names} | {own.names for own in trials.values()}
    ranked = {names: best_at(names, trials, predicted, truth(scheme.part(names)), metric) for names in asked}
    tasks = dict.fromkeys(own.names for own in trials.values())
    by_task = {names: [one for one in ranked[names] if trials[one].names == names] for names in tasks}
    every = list(tellings(covered, [names[0] for names in sorted(asked) if len(names) == 1]))
    ways = [way for names in every for way in partitions(names, sorted(by_task))]
    found = [_member(covered, trials, zip(row, way, strict=True)) for way in ways for row in zip(*map(by_task.get, way), strict=False)]
    for names in every:
        apart = [(name,) for name in names]
        found += [_member(covered, trials, zip(row, apart, strict=True)) for row in zip(*map(ranked.get, apart), strict=False)]
    whole = [(Part(one, covered, covered.names),) for one in by_task.get(covered.names, [])]
    parts = {names: covered.about(names) for names in by_task if names != covered.names and covered.part(names).names == names}
    specialists = [(Part(by_task[names][0], trials[by_task[names][0]], names),) for names in parts]
    specialists.sort(key=lambda advisor: (len(advisor[0].names), covered.names.index(parts[advisor[0].names][0])))
    found += [Member(covered, parts, advisor) for parts in whole for advisor in specialists]
    return list(dict.fromkeys(found))


def best_at(names: Names, trials: Mapping[str, Scheme], predicted: Predicted, truth: np.ndarray, metric: Metric) -> list[str]:
    """Names of the trials that cover these targets, best first by their score on these alone, against what is true of them."""
    able = {trial: own for trial, own in trials.items() if set(names) <= set(own.names)}
    scores = {trial: metric.sign * metric.score(truth, own.marginal(names, predicted[trial])) for trial, own in able.items()}
    return sorted(scores, key=lambda trial: -scores[trial])


def _member(scheme: Scheme, trials: Mapping[str, Scheme], chosen: Iterable[tuple[str, Names]]) -> Member:
    """The member of these trials, each asked for these targets; one that is asked for several in turn is asked for them at once."""
    asked: dict[str, list[str]] = {}
    for trial, names in chosen:
        asked.setdefault(trial, []).extend(names)
    return Member(scheme, tuple(Part(trial, trials[trial], trials[trial].part(tuple(names)).names) for trial, names in asked.items()))


def tellings(scheme: Scheme, names: Sequence[str]) -> Iterator[Names]:
    """Every choice among these targets and questions that tells all of a scheme, and from which nothing can be left out."""
    choices = []
    for target in scheme.targets:
        part = scheme.part((target.name,))
        asked = [name for name in names if name != target.name and scheme.about((name,)) == (target.name,)]
        found: list[Names] = [(target.name,)] if target.name in names else []
        for size in range(1, len(asked) + 1):
            able = [one for one in combinations(asked, size) if part.determine(one)]
            found += [one for one in able if not any(set(less) < set(one) for less in found)]
        choices.append(found)
    for way in product(*choices):
        yield tuple(name for one in way for name in one)


def partitions(wanted: Names, parts: Sequence[Names]) -> Iterator[tuple[Names, ...]]:
    """Every choice of parts that holds each wanted name exactly once, ordered by their first names."""
    if not wanted:
        yield ()
        return
    for part in parts:
        if wanted[0] in part and set(part) <= set(wanted):
            rest = tuple(name for name in wanted if name not in part)
            yield from ((part, *others) for others in partitions(rest, parts))
