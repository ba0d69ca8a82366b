"""What the command prints of members and answers."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from analysis.ensemble import ENSEMBLES
from analysis.ensemble.outcome import Choice, Outcome
from analysis.trials import Trial


def reason(choice: Choice) -> str:
    """Why this vote."""
    compared = ", ".join(f"{name} {score:.3f}" for name, score in choice.scores.items())
    if choice.asked != "auto":
        return f"as asked (validation macro F1: {compared})"
    tied = list(choice.scores.values()).count(max(choice.scores.values())) > 1
    return f"chosen on validation (macro F1: {compared}{'; a tie goes to the first' if tied else ''})"


def members_table(outcome: Outcome) -> Table:
    """The voters: which trials, what they predict with, and how well."""
    table = Table(title="Members, best on validation first", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("trial", "task", "backbone", "what else differs"):
        table.add_column(name, overflow="fold")
    for name in ("validation", "hold-out"):
        table.add_column(f"{name}\nmacro F1", justify="right", no_wrap=True)
    differs = differences([trial for member in outcome.members for trial in member.trials])
    for member, score in zip(outcome.members, outcome.member_scores, strict=True):
        for row, trial in enumerate(member.trials):
            both = (f"{member.score:.3f}", f"{score:.3f}") if row == 0 else ("", "")
            joined = str(trial) if row == 0 else f"x {trial}"
            table.add_row(escape(joined), task_words(trial), trial.record.config.model.backbone, escape(differs[trial]), *both)
    return table


def answers_table(outcome: Outcome) -> Table:
    """What each answer is worth on the hold-out."""
    table = Table(title="Answers on the hold-out", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("answer")
    for name in ("macro F1 (95 %)", "accuracy", *(f"{attribute} F1" for attribute in outcome.scheme.names)):
        table.add_column(name, justify="right")
    for name, score in outcome.scores.items():
        table.add_row(
            answer_words(name),
            f"{score.macro_f1:.3f} ({score.interval[0]:.3f}-{score.interval[1]:.3f})",
            f"{score.accuracy:.3f}",
            *(f"{score.attribute_f1[attribute]:.3f}" for attribute in outcome.scheme.names),
            style="bold" if name == outcome.vote else None,
        )
    return table


def gain_lines(outcome: Outcome) -> list[str]:
    """The gain of each vote over the best single member, and whether it can be told from none."""
    lines = []
    for name, score in outcome.scores.items():
        if name in ENSEMBLES:
            low, high = score.gain_interval
            words = f"{answer_words(name)} over the best single: {score.gain:+.3f} macro F1 (95 % {low:+.3f} to {high:+.3f})"
            lines.append(words if score.distinguishable else f"{words}, not distinguishable")
    return lines


def answer_words(name: str) -> str:
    return f"{name} vote" if name in ENSEMBLES else name


def task_words(trial: Trial) -> str:
    """`joint`, `heads` or one attribute as the settings say it; else one word group a head, such as `left x right, up`."""
    named = trial.record.config.task
    return named if isinstance(named, str) else ", ".join(" x ".join(head) for head in trial.task.heads)


def differences(trials: Sequence[Trial], most: int = 3) -> dict[Trial, str]:
    """What tells each trial from the others beside task and backbone: names before numbers, at most `most` and a count of the rest."""
    flat = {trial: dict(varied_settings(trial)) for trial in trials}
    paths = next(iter(flat.values()))
    differing = [path for path in paths if len({json.dumps(values[path]) for values in flat.values()}) > 1]
    found = {}
    for trial, values in flat.items():
        names_first = sorted(differing, key=lambda path: not isinstance(values[path], str))
        parts = [f"{setting_words(path)}={short(values[path])}" for path in names_first]
        rest = len(parts) - most
        found[trial] = " ".join(parts[:most]) + (f" and {rest} more" if rest > 0 else "")
    return found


def varied_settings(trial: Trial) -> Iterator[tuple[str, Any]]:
    """The trial's settings but task, backbone and seed, by path."""
    for section, values in trial.record.config.values().items():
        if isinstance(values, dict):
            yield from ((f"{section}/{name}", value) for name, value in values.items() if (section, name) != ("model", "backbone"))
        elif section not in ("task", "seed"):
            yield section, values


def setting_words(path: str) -> str:
    """A setting's path, short: `loss` of `loss/name`, `gamma` of `loss/gamma`."""
    section, _, name = path.rpartition("/")
    return section if name == "name" else name


def short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
