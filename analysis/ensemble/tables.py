"""What the command prints of members, votes and answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from analysis.command import table
from analysis.evaluation.decide import (
    ENOUGH_GROUPS,
    GREEDY_ALL,
    SINGLE,
    Choice,
    Decision,
    MissingWeights,
    Options,
    Outcome,
    StepTaken,
    answer_words,
    step_words,
)
from analysis.evaluation.shift import Shift, Worth
from analysis.evaluation.uncertainty import Gain, gain_words, score_words
from analysis.members.price import Price, price_of
from analysis.members.trials import Trial, task_words, train_again
from trainables.data.names import some
from trainables.data.targets import Scheme
from trainables.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd


def members_table(outcome: Outcome, trials: Mapping[str, Trial]) -> Table:
    """The members: which trials, with which weight, what they predict with, and how well."""
    decision = outcome.decision
    title = decision.metric.title
    figures = ("weight", f"validation\n{title}", f"hold-out\n{title}", "significantly\nbelow the best")
    found = table("Members, best on validation first", ("member", "task", "backbone", "other differences"), figures)
    members = decision.lineup.members
    differs = differences([trials[name] for member in members for name in member.trials])
    weights = vote_weights(decision) or ["-"] * len(members)
    for index, (member, score) in enumerate(zip(members, outcome.member_scores, strict=True)):
        apart = "-" if index == 0 else "no" if decision.alike[index] else "yes"
        figures = (weights[index], f"{decision.member_scores[index]:.3f}", f"{score:.3f}", apart)
        words = [f"{'' if row == 0 else 'x '}{part}" for row, part in enumerate(member.parts)]
        words += [f"advised by {advisor}" for advisor in member.advisors]
        for row, (word, part) in enumerate(zip(words, (*member.parts, *member.advisors), strict=True)):
            trial = trials[part.trial]
            found.add_row(
                word,
                task_words(trial),
                trial.record.config.model.backbone,
                differs[trial],
                *(figures if row == 0 else ()),
            )
    return found


def vote_weights(decision: Decision) -> list[str] | None:
    """The weight of each member in the vote that was chosen, in words; None where that vote has no weights of its members."""
    weights = getattr(decision.pipelines[decision.choice.vote].ensemble, "weights", None)
    return [f"{weight:.2f}" for weight in weights] if weights is not None else None


def votes_table(decision: Decision) -> Table:
    """What each vote, and each step around the chosen one, is worth on validation groups that it was not fitted on."""
    found = table("Votes on validation, cross-validated over groups", ())
    found.add_column("vote")
    share = "95 %, simultaneous" if len(decision.choice.evaluated) > 2 else "95 %"
    for name in (f"{decision.metric.title} (95 %)", f"gain over the best single ({share})"):
        found.add_column(name, justify="right")
    for name, evaluated in decision.choice.evaluated.items():
        gain = "" if name == SINGLE else gain_words(evaluated.gain)
        score = score_words(evaluated.score, evaluated.interval)
        found.add_row(answer_words(name), score, gain, style="bold" if name == decision.choice.vote else None)
    return found


def steps_table(decision: Decision) -> Table:
    """What each step is worth, on top of those taken before it."""
    found = table("Steps before and after the vote, cross-validated likewise", ())
    found.add_column("step")
    for name in (f"{decision.metric.title} (95 %)", "gain (95 %)", "calibration error", "time"):
        found.add_column(name, justify="right")
    found.add_column("")
    for step in decision.steps:
        error = "" if step.error is None else f"{step.error[0]:.3f} to {step.error[1]:.3f}"
        found.add_row(
            step_words(step.name),
            score_words(step.evaluated.score, step.evaluated.interval),
            gain_words(step.evaluated.gain),
            error,
            f"x {step.price:g}",
            _use(step),
        )
    return found


def answers_table(outcome: Outcome) -> Table:
    """What each answer is worth on the hold-out."""
    found = table("Answers on the hold-out (test)", ())
    found.add_column("answer")
    names, title = outcome.decision.scheme.names, outcome.decision.metric.title
    for name in score_columns(title, names):
        found.add_column(name, justify="right")
    for name, score in outcome.scores.items():
        found.add_row(
            answer_words(name),
            score_words(score.score, score.interval),
            "" if name == SINGLE else gain_words(score.gain),
            "-" if score.accuracy is None else f"{score.accuracy:.3f}",
            *(f"{score.target_scores[target]:.3f}" for target in names),
            style="bold" if name == outcome.decision.final else None,
        )
    return found


def score_columns(title: str, names: Sequence[str]) -> tuple[str, ...]:
    """What is shown of an answer, by the metric of this title and for these targets."""
    return f"{title} (95 %)", "gain over the best single (95 %)", "accuracy", *(f"{name}: {title}" for name in names)


def classes_table(rows: "pd.DataFrame") -> Table:
    """The classes of the answer, one row each."""
    found = table("The answer's classes on the hold-out (test)", ())
    found.add_column("class")
    for name in rows.columns[1:]:
        found.add_column(name, justify="right")
    for row in rows.itertuples(index=False):
        figures = [f"{value:,}" if isinstance(value, int) else "" if np.isnan(value) else f"{value:.3f}" for value in row[1:]]
        found.add_row(row[0], *figures)
    return found


def shift_table(scheme: Scheme, shifts: Sequence[Shift]) -> Table:
    """Class priors among the images without labels, beside those learned from; two estimates take known mistakes out."""
    found = table("Class priors: learned from, and found among the eval images", ())
    found.add_column("target")
    found.add_column("value")
    for name in ("learned from", "answered", "EM (95 %)", "BBSE", "prior shift"):
        found.add_column(name, justify="right")
    for target, shift in zip(scheme.targets, shifts, strict=True):
        rows = zip(target.values, shift.trained, shift.predicted, shift.em, shift.em_intervals, shift.bbse, strict=True)
        for row, (value, trained, predicted, estimated, (low, high), unmixed) in enumerate(rows):
            shifted = f"{'significant' if shift.significant else 'not significant'} (p {shift.p_value:.3f})" if row == 0 else ""
            name = shift.attribute if row == 0 else ""
            both = (f"{estimated:.1%} ({low:.1%} to {high:.1%})", f"{unmixed:.1%}")
            found.add_row(name, value, f"{trained:.1%}", f"{predicted:.1%}", *both, shifted)
    return found


def correction_words(worth: Worth, metric: Metric) -> str:
    """What a correction for shifted shares is worth on validation groups who stand for those shares."""
    low, high = worth.interval
    found = f"{worth.before:.3f} to {worth.after:.3f} {metric.title} on validation groups weighted to them"
    return f"{found}, {metric.sign * (worth.after - worth.before):+.3f} ({low:+.3f} to {high:+.3f})"


def decision_lines(decision: Decision) -> list[str]:
    """Which answer it is and why, and how far the best member's score can be trusted."""
    choice = decision.choice
    lines = [f"The answer is the {answer_words(choice.answer)}: {reason(choice)}."]
    if len(decision.alike) > 1:
        alike = int(decision.alike[1:].sum())
        lines.insert(0, f"{alike} of the other {len(decision.alike) - 1} members are not significantly worse than the best.")
    if decision.few:
        lines.append(
            f"Not tried, as {ENOUGH_GROUPS} validation groups are needed to choose among so many votes: {', '.join(decision.few)}."
        )
    if decision.untried:
        words = "score probabilities" if decision.metric.takes == "probabilities" else "are no sums over images"
        lines.append(f"Not tried, as scores by {decision.metric.title} {words}: {', '.join(map(step_words, decision.untried))}.")
    return lines


def decision_notes(decision: Decision) -> list[str]:
    """What to keep in mind of how the answer was chosen."""
    found, notes = decision.optimism, []
    if found.members > 1:
        bias = f"optimistic by about {found.expected:.3f}" if found.expected > 0.0005 else "hardly optimistic"
        corrected = score_words(found.corrected, found.corrected_interval)
        notes.append(
            f"The best of {found.members} members was picked by its score on validation, which makes that {bias}: "
            f"corrected, it is {corrected}."
        )
    return notes + ([missing_weights_words(decision.missing_weights)] if decision.missing_weights else [])


def limit_words(options: Options, decision: Decision, unlimited: Decision, prices: Mapping[str, Price]) -> str:
    """What the answer costs, and what would answer if it might cost anything."""
    (here, own), (there, other) = (
        (one.choice.answer, price_of(prices, one.pipelines[one.choice.answer].trials)) for one in (decision, unlimited)
    )
    limit = options.member_options.limit
    if decision.pipelines[here] == unlimited.pipelines[there]:
        return f"The limit ({limit}) changes nothing: without it the same answers, {own}."
    scored = unlimited.choice.evaluated[there]
    return (
        f"Within the limit ({limit}): {own}, before any step. Without it the {answer_words(there)} would answer: "
        f"{unlimited.metric.title} {score_words(scored.score, scored.interval)} on validation against "
        f"{decision.choice.evaluated[here].score:.3f}, {other}."
    )


def missing_weights_words(missing_weights: MissingWeights) -> str:
    """What a vote would be worth whose weights were not all kept, and below, a line each, the commands that train them again."""
    gain = f"{gain_words(missing_weights.evaluated.gain)} over the best single model"
    words = (
        f"A {answer_words(GREEDY_ALL)} that were searched scores {missing_weights.evaluated.score:.3f} there ({gain}), "
        f"but takes {some(missing_weights.trials)}, whose weights were not kept (run/keep). Train these again, then give the new run "
        "as a further --run:"
    )
    return "\n".join([words, *(f"  {command}" for command in train_again(missing_weights.trials))])


def reason(choice: Choice) -> str:
    """Why this answer."""
    if choice.vote in choice.too_dear:
        return "every vote costs more than the limit"
    gain = f"{gain_words(choice.gain)}, {significance_words(choice.gain)}"
    how = "chosen on validation" if choice.asked == "auto" else "as asked"
    if choice.answer != SINGLE:
        return f"{how}, on groups that it was not fitted on its gain over the best single model is {gain}"
    if choice.gain.gain <= 0:
        return f"no vote scores better on groups that it was not fitted on; the best of them gains {gain}"
    return f"the gain of the {answer_words(choice.vote)} is {gain}, and --safe takes only what is significantly better"


def significance_words(gain: Gain) -> str:
    """`not significant (p 0.21)`."""
    p = "p < 0.001" if gain.p < 0.001 else f"p {gain.p:.2g}"
    return f"{'' if gain.significant else 'not '}significant ({p})"


def fold_line(scores: Mapping[str, float]) -> str:
    """The answer's score on each fold, by its name, and how far they lie apart."""
    found = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    return f"The answer fold by fold: {found} (standard deviation {np.std(list(scores.values()), ddof=1):.3f})."


def compared(gain: Gain) -> str:
    """A gain, and whether it is significant, in words."""
    low, high = gain.interval
    kind = "significantly better" if low > 0 else "significantly worse" if high < 0 else "not significantly different"
    return f"{gain_words(gain)}, {kind}"


def _use(step: StepTaken) -> str:
    if step.asked:
        return "used, as asked"
    return "used" if step.used else "not used: no significant gain"


def differences(trials: Sequence[Trial], most: int = 3) -> dict[Trial, str]:
    """The settings of each trial that vary, beside task and backbone: names before numbers, at most `most` and a count of the rest."""
    flat = {trial: dict(varied_settings(trial)) for trial in trials}
    # Which settings a trial has depends on what it chose.
    paths = dict.fromkeys(path for values in flat.values() for path in values)
    differing = [path for path in paths if len({json.dumps(values.get(path)) for values in flat.values()}) > 1]
    found = {}
    for trial, values in flat.items():
        own = [path for path in differing if path in values]
        names_first = sorted(own, key=lambda path: not isinstance(values[path], str))
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
