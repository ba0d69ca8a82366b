"""What is printed when trials have ended: their scores, their cost, where their files are, what to do next."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.ensemble.tables import compared
from trainables.baseline import baseline_of, is_baseline
from trainables.commands import started, typed
from trainables.data.splits import NO_FOLD
from trainables.data.training import Data
from trainables.metrics import BY_NAME, METRICS_OF, Metric
from trainables.record import BASELINE, Origin, Record, RunCard, name_of, ranked, read_predictions, read_records, searched_run, write_json
from trainables.storage import UNWRITABLE, size_below
from trainables.validation import pooled_score, score_by, validation_interval
from tuner.board import Board, clock, differs
from tuner.gain import as_found, gain_over
from tuner.prepare import Plan
from tuner.runs import resume_command, resume_refits, vote_command
from tuner.stoppers.soft_stop import SoftStop

SUMMED_UP = 10  # rows of the last table


def summarize(plan: Plan, data: Data, board: Board, seconds: float, soft_stop: SoftStop, console: Console) -> None:
    """The last table, what it cost, where the files are, and what to do next."""
    run, metric = plan.run, plan.settings.score()
    records = read_records(run)
    scored = ranked(records, metric.sign)
    table = Table(title=f"Best trials of {run.name}, by {metric.title} ({plan.over}) on validation", title_justify="left", box=None)
    # Not twice where the metric is accuracy itself, and not of a number.
    beside = ["accuracy"] if metric.name != "accuracy" and "accuracy" in METRICS_OF[metric.target] else []
    also = [name for name in plan.settings.also if name not in beside]
    titles = [BY_NAME[name].title for name in also]
    for column in ("trial", "state", "best epoch", metric.title, "95 % CI", *beside, *titles):
        table.add_column(column, justify="left" if column == "state" else "right")
    table.add_column("what differs", overflow="fold")
    for record in scored[:SUMMED_UP]:
        best = record.best
        predicted = read_predictions(record.folder)
        low, high = validation_interval(record.config, predicted, data.images, data.split)
        row = [f"{best['epoch']} of {len(record.reports)}", f"{best['score']:.3f}", f"{low:.3f} - {high:.3f}"]
        row += [f"{best[name]:.3f}" for name in beside]
        row += [f"{score_by(name, record.config, predicted, data.images, data.split):.3f}" for name in also]
        table.add_row(str(record.number), record.result.state, *row, differs(plan.space, record.config.values()))
    console.print()
    console.print(table)
    for values in plan.baselines().values():
        show_baseline(plan, data, records, values, console)
    show_end(plan, records, board, seconds, soft_stop, resume_command(run), console)
    follows = (plan.settings.finalists or plan.settings.answer) and not soft_stop.code
    if scored and not follows:
        shown = started(f"tensorboard --logdir {shlex.quote(f'{run}/trials')}")
        curves = f"   or: {shown}" if isinstance(run, Path) else ""
        console.print(Text.assemble("Next: ", (vote_command(run, len(scored)), "bold"), curves), soft_wrap=True)


def summarize_probes(plan: Plan, data: Data, board: Board, seconds: float, soft_stop: SoftStop, console: Console) -> None:
    """How long the probes took, and what to do next."""
    records = read_records(plan.run)
    show_end(plan, records, board, seconds, soft_stop, resume_command(plan.run), console)
    if any(record.has_model for record in records):
        following = (vote_command(plan.run, len(records)), "bold"), "   or the search: ", (resume_command(plan.run), "bold")
        console.print(Text.assemble("Next: ", *following), soft_wrap=True)


def show_baseline(plan: Plan, data: Data, records: Sequence[Record], values: Mapping[str, Any], console: Console) -> None:
    """What the best trial gains over the baseline of these values, or why that is not known; `baseline.json` says it of the search's."""
    baseline = next((record for record in records if is_baseline(record.config, values)), None)
    if baseline is None:
        return
    predicts, several = plan.predicts(baseline.config.values()), len(plan.kinds()) > 1
    best = next((one for one in ranked(records, plan.settings.score().sign) if plan.predicts(one.config.values()) == predicts), None)
    of = f" for {predicts}" if several else ""
    which = f"the baseline{of}, trial {baseline.number} ({'the first start entry' if plan.space.start else 'the defaults of the space'})"
    style = None
    if best is None or not baseline.best:
        found = as_found(plan, baseline)
        words, style = f"{which.capitalize()}, has no score: {baseline.result.reason}. What the search gains is not known.", "yellow"
    else:
        gain = gain_over(baseline, best, data, plan.seed)
        found = as_found(plan, baseline, best, gain)
        whole = baseline.result.state == "finished"
        unfinished = "" if whole else f", which was {baseline.result.state} after {len(baseline.reports)} epochs"
        optimistic = "These images chose the best trial, so its gain is optimistic."
        words = f"Trial {best.number} against {which}{unfinished}: {compared(gain)} (95 % CI). {optimistic}"
        if best.number == baseline.number:
            words = f"No trial is better than {which}."
    try:
        if values == baseline_of(plan.space):
            write_json(plan.run / BASELINE, found)
    except OSError as error:
        # It is written again when the search resumes; a full disk is told below.
        if error.errno not in UNWRITABLE:
            raise
    console.print(words, style=style, highlight=False, soft_wrap=True)


def show_end(
    plan: Plan, records: Sequence[Record], board: Board, seconds: float, soft_stop: SoftStop, resume: str, console: Console
) -> None:
    """How the trials ended, what they cost, and how to resume where something is left to do."""
    run = plan.run
    states = [record.result.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "stopped", "interrupted", "failed") if state in states)
    console.print(f"{len(records)} trials: {counts or 'none'}", highlight=False)
    for record in records:
        if record.result.state == "failed":
            console.print(f"  trial {record.number} failed: {record.result.reason}", style="red", highlight=False, markup=False)
    for note in board.notes:
        console.print(note, highlight=False, markup=False)
    pace = f"{board.images:,} images trained in {clock(seconds)}, {board.images / seconds:,.0f} images/s over the whole command"
    console.print(f"{pace}. Size of {run}: {size_below(run) / 1e6:,.0f} MB", highlight=False)
    if soft_stop.reason:
        console.print(f"Stopped early by {soft_stop.reason}; every reported epoch is kept.", highlight=False)
    if soft_stop.deadline is not None and soft_stop.reason and not any(record.reports for record in records):
        trained = monotonic() - board.started
        epoch = f", and an epoch takes longer than {clock(trained)}" if trained >= 1 else ""
        parts = f"{clock(seconds - trained)} went by until trials began{epoch}"
        console.print(f"The time budget is too small for one epoch: {parts}. Try --time-budget {2 * seconds / 60:.0f}m.", style="yellow")
    if soft_stop.no_room:
        # A file stands beside its old one for a moment, and every kept trial adds one of this size.
        need = (plan.settings.keep + 2) * max((size_below(record.folder) for record in records), default=0)
        console.print(f"Free some disk space there before you resume: {need / 1e6:,.0f} MB are enough for all.", highlight=False)
    if soft_stop.reason or "interrupted" in states:
        console.print(Text.assemble("Resume with: ", (resume, "bold")), soft_wrap=True)


# Refits


@dataclass(frozen=True)
class Refitted:
    """One configuration trained again with one seed, on each of its folds."""

    origin: Origin
    seed: int
    planned: int  # trials
    done: tuple[Record, ...]  # those that ran to their end, by number
    pooled: tuple[float, tuple[float, float]] | None  # score of the predictions of all of these, 95 % CI; None: no validation split

    @property
    def fold_scores(self) -> list[float]:
        """The score of each fold by itself."""
        return [record.best["score"] for record in self.done]


def refitted(data: Data, card: RunCard, records: Sequence[Record]) -> list[Refitted]:
    """The trials of a refit by configuration and seed, in the order of their numbers."""
    groups: dict[tuple[Origin, int], list[Record]] = {}
    for record in records:
        groups.setdefault((card.origins[record.number], record.config.seed), []).append(record)
    found = []
    for (origin, seed), group in groups.items():
        done = [record for record in group if record.result.state == "finished"]
        predicted = [(record.config, read_predictions(record.folder)) for record in done if record.config.data.fold != NO_FOLD]
        pooled = pooled_score(predicted, data.images, data.split) if predicted else None
        found.append(Refitted(origin, seed, len(group), tuple(done), pooled))
    return found


def summarize_refit(plan: Plan, data: Data, card: RunCard, board: Board, seconds: float, soft_stop: SoftStop, console: Console) -> None:
    """The scores of each configuration beside the searched one's, what it cost, and what to do next."""
    run, searched, records = plan.run, searched_run(plan.run, card), read_records(plan.run)
    groups = refitted(data, card, records)
    evaluated = all(record.config.data.fold != NO_FOLD for record in records)
    console.print()
    console.print(scores_table(plan, searched.name, groups) if evaluated else models_table(searched.name, groups))
    for words in spread_over_seeds(searched.name, groups, plan.settings.score()):
        console.print(words, highlight=False)
    show_end(plan, records, board, seconds, soft_stop, resume_refits(run, card), console)
    done = [group for group in groups if group.done]
    if not done:
        return
    if not evaluated:
        console.print(
            "These models have no validation score, since all but the hold-out (test) trained. Choose by the scores of the search.",
            highlight=False,
        )
        following = f"{vote_command(searched, len(done))} --run {name_of(run)}"
    elif any(group.planned > 1 for group in groups):
        console.print(
            "Each fold's best epoch was chosen on that fold: only the score on the hold-out (test) is unbiased.",
            highlight=False,
        )
        sign = plan.settings.score().sign
        _, best = max(((sign * group.pooled[0], group.origin) for group in groups if group.pooled), key=itemgetter(0))
        following = typed(f"tuner.refit --run {name_of(searched)} --trials {best.trial} --all-data")
    else:
        following = vote_command(run, len(done))
    console.print(Text.assemble("Next: ", (following, "bold")), soft_wrap=True)


def scores_table(plan: Plan, searched: str, groups: Sequence[Refitted]) -> Table:
    """A row for each configuration and seed: the score over all its folds, with its interval."""
    metric, targets = plan.settings.score(), ", ".join(plan.targets)
    title = f"Refits of {searched}, by {metric.title} ({targets}), out of fold"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("refit of", "seed", "folds", metric.title, "95 % CI", "mean of folds", "sd", "searched"):
        table.add_column(column, justify="right")
    for group in groups:
        words = ["-"] * 4
        if group.pooled:
            (score, (low, high)), folds = group.pooled, group.fold_scores
            words = [f"{score:.3f}", f"{low:.3f} - {high:.3f}", f"{np.mean(folds):.3f}", deviation(folds)]
        counts = [f"{len(group.done)} of {group.planned}", *words, f"{group.origin.score:.3f}"]
        table.add_row(f"{searched}/{group.origin.trial}", str(group.seed), *counts)
    return table


def models_table(searched: str, groups: Sequence[Refitted]) -> Table:
    """A row for each configuration and seed that trained on all but the hold-out."""
    table = Table(title=f"Refits of {searched} on all but the hold-out", title_justify="left", box=None)
    for column in ("refit of", "seed", "epochs", "searched", "model"):
        table.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for group in groups:
        epochs = str(len(group.done[0].reports)) if group.done else "-"
        model = str(group.done[0].model) if group.done else "-"
        table.add_row(f"{searched}/{group.origin.trial}", str(group.seed), epochs, f"{group.origin.score:.3f}", model)
    return table


def spread_over_seeds(searched: str, groups: Sequence[Refitted], metric: Metric) -> Iterator[str]:
    """For each configuration with several seeds, mean and standard deviation of the score over them."""
    for origin in dict.fromkeys(group.origin for group in groups):
        scores = [group.pooled[0] for group in groups if group.origin == origin and group.pooled]
        if len(scores) > 1:
            mean = f"{metric.title} {np.mean(scores):.3f}, sd {deviation(scores)} over {len(scores)} seeds"
            yield f"{searched}/{origin.trial}: {mean}; searched {origin.score:.3f}"


def deviation(scores: Sequence[float]) -> str:
    """The standard deviation of a sample; one score has none."""
    return f"{np.std(scores, ddof=1):.3f}" if len(scores) > 1 else "-"
