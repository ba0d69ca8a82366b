"""Which members vote, as the options say: every mistake is reported at once, before anything is predicted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from analysis.evaluation.margin import Margin
from analysis.evaluation.nested import MemberOptions
from analysis.members.trials import Runs, Trial, train_again
from trainables.registry import ConfigError, Mistake, nearest

TOP = 3
KINDS = ("backbone", "task")


def read_member_options(top: int | None, members: str, whole: bool, per: str, diverse: bool) -> MemberOptions:
    """What the options say of who votes. Raises: ConfigError naming all that do not go together, or are unknown."""
    mistakes = []
    others = {"--top": top is not None, "--per": bool(per), "--diverse": diverse}
    if members and (clash := [name for name, given in others.items() if given]):
        mistakes.append(Mistake(", ".join(clash), "chooses members, and --members says who they are; leave one of them out"))
    if per and diverse:
        mistakes.append(Mistake("--per", "it and --diverse are two ways to choose; give one of them"))
    if per and per not in KINDS:
        mistakes.append(Mistake("--per", f"{per!r} is not known; take {' or '.join(KINDS)}"))
    if mistakes:
        raise ConfigError(mistakes)
    named = tuple(dict.fromkeys(name.strip() for name in members.split(",") if name.strip()))
    choose: dict[str, Any] = {"choose": "diverse"} if diverse else {"choose": "per kind", "per": per} if per else {}
    return MemberOptions(top=TOP if top is None else top, alone=whole, named=named, **choose)


def settle(member_options: MemberOptions, runs: Runs) -> MemberOptions:
    """The options for these runs: with members that are named, as many members as these make.

    Trials that are named vote as they are. Where they predict different targets, one of each makes a member.
    Raises: ConfigError naming every trial that is not there or has no weights, and targets that overlap.
    """
    everything = set(runs.scheme.told(name for trial in runs.trials for name in trial.task.scheme.names).names)
    if not member_options.named:
        if member_options.alone and not any(set(trial.task.scheme.names) == everything for trial in runs.trials):
            raise ConfigError([Mistake("--whole", f"no trial predicts all of {', '.join(sorted(everything))}; leave it out")])
        return member_options
    trials = {trial.name: trial for trial in runs.trials}
    unkept = {trial.name for trial in runs.unkept}
    mistakes = []
    for name in member_options.named:
        if name in unkept:
            (again,) = train_again([name])
            mistakes.append(
                Mistake("--members", f"{name} has no weights any more (run/keep); train it again ({again}) and give that run, too")
            )
        elif name not in trials:
            hint = nearest(name, list(trials)) or f"; there are {', '.join(trials)}"
            mistakes.append(Mistake("--members", f"there is no trial {name!r} that can vote{hint}"))
    if mistakes:
        raise ConfigError(mistakes)
    count = _count_members([trials[name] for name in member_options.named])
    return MemberOptions(top=count, alone=count == len(member_options.named), named=member_options.named)


@dataclass(frozen=True)
class MarginOptions:
    """What is asked of a top-2 margin rule whose gap is given."""

    gap: float  # in nats
    values: tuple[str, ...] = ()  # such as mask=worn and age>=60
    each: bool = False
    disagree: bool = False


def read_margin(gap: float | None, values: Sequence[str], each: bool, disagree: bool) -> MarginOptions | None:
    """What the options say of the rule. Raises: ConfigError naming all that mean nothing without the others."""
    mistakes = []
    if gap is None:
        given = {"--margin-for": values, "--margin-each": each, "--margin-disagree": disagree}
        mistakes = [Mistake(name, "says where --margin applies; give that, too") for name, there in given.items() if there]
    elif not (gap > 0 and isfinite(gap)):
        mistakes.append(Mistake("--margin", f"must be a number above 0, in nats, got {gap:g}"))
    if mistakes:
        raise ConfigError(mistakes)
    return None if gap is None else MarginOptions(gap, tuple(dict.fromkeys(values)), each, disagree)


def settle_margin(options: MarginOptions, member_options: MemberOptions, runs: Runs) -> Margin:
    """The rule for what these members answer, with how many images of each class the trials learned from.

    Raises: ConfigError naming values that there are not, and members that predict no classes.
    """
    named = member_options.named
    scheme = runs.scheme.told(name for trial in runs.trials if trial.name in named or not named for name in trial.task.scheme.names)
    if scheme.kind != "classes":
        raise ConfigError([Mistake("--margin", f"takes the class with more images, and the members predict {scheme.kind}; leave it out")])
    pairs = [(target, value) for target in scheme.targets for value in target.values]
    known = {f"{target.name}{'' if target.cuts and value[0] in '<>' else '='}{value}": (target.name, value) for target, value in pairs}
    there = ", ".join(known)
    if unknown := [one for one in options.values if one not in known]:
        raise ConfigError(
            [Mistake("--margin-for", f"there is no {one!r}{nearest(one, list(known)) or f'; there are {there}'}") for one in unknown]
        )
    images = np.bincount(runs.learned.truth(scheme), minlength=scheme.classes).tolist()
    return Margin(options.gap, scheme, tuple(images), tuple(known[one] for one in options.values), options.each, options.disagree)


def _count_members(trials: Sequence[Trial]) -> int:
    """How many members these trials make. Raises: ConfigError where targets overlap, or are not predicted equally often."""
    counts = Counter(trial.task.scheme.names for trial in trials)
    overlap = [name for name, times in Counter(name for names in counts for name in names).items() if times > 1]
    kinds = "; ".join(f"{trial.name}: {', '.join(trial.task.scheme.names)}" for trial in trials)
    if overlap:
        words = f"these overlap in {', '.join(overlap)} ({kinds}); name trials that all predict the same, or that share no target"
        raise ConfigError([Mistake("--members", words)])
    if len(set(counts.values())) > 1:
        raise ConfigError([Mistake("--members", f"each target takes as many trials as the others ({kinds}); name more, or fewer")])
    return min(counts.values())
