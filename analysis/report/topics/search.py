"""The search: what was tried, what it gave, what it cost."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from analysis.evaluation.fidelity import MISLEADING
from analysis.evaluation.search.history import best_of, costs, history, parallel_lines, ranked, rungs
from analysis.evaluation.search.importance import FEWEST, importances
from analysis.evaluation.search.reading import STATES, Search
from analysis.evaluation.search.space import Dimension, words
from analysis.evaluation.search.values import setting_scores
from analysis.figures.search import (
    HIGHLIGHTED,
    MOST,
    choices_figure,
    costs_figure,
    curves_figure,
    fidelity_figure,
    history_figure,
    importance_figure,
    numbers_figure,
    parallel_figure,
)
from analysis.pages.parts import Part, Picture, Words
from analysis.pages.tables import Table, as_number, number_range, table_of
from analysis.report.cells import no_space
from trainables.commands import typed
from trainables.data.targets import read_task

PROBES = 12  # of the table that is shown at once
AXES = 12  # of the parallel coordinates
MOST_CLASSES = 60  # of the table of what a sampler showed


@dataclass(frozen=True)
class Run:
    """A search, with what its pictures' files are called by."""

    search: Search
    suffix: str  # of the names of its pictures; empty where there is one run only


Topic = Callable[[Run], Iterator[Part]]


def _history(run: Run) -> Iterator[Part]:
    steps = history(run.search.trials, run.search.metric)
    states = [trial.state for trial in run.search.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield Words(f"{len(steps):,} trials: {counts}. {steps[-1].hours:.3g} hours of training, all trials added.")
    thin = f" Of an outcome with more than {MOST} trials, {MOST} are drawn." if max(map(states.count, STATES)) > MOST else ""
    yield Picture(
        f"history{run.suffix}",
        "Score of each trial by order and by hours of training, with the best so far",
        f"Each point is a trial's best {run.search.metric.title} on validation; the line is the best so far. "
        "Trials that were stopped count with what they "
        f"reached.{thin}",
        history_figure(steps, run.search.metric),
    )
    yield _trials_table(run.search)
    yield from _shown_table(run.search)


def _shown_table(search: Search) -> Iterator[Part]:
    """How often the sampler of the best trial showed each class; nothing where the trial did not count it."""
    best = ranked(search.trials, search.metric)[0]
    counts = [report["shown"] for report in best.reports if report.get("shown")]
    task = read_task(best.settings.get("task", "joint"), search.card.scheme)
    names = task.scheme.of_kind(task.scheme.kinds[0]).class_names()
    if not counts or len(counts[0]) != len(names):
        return
    means = [sum(column) / len(counts) for column in zip(*counts, strict=True)]
    rows = [(name, f"{mean:,.0f}", f"{mean / max(1, sum(means)):.1%}") for name, mean in zip(names, means, strict=True)]
    sampler = best.settings.get("sampler/name", "shuffle")
    caption = f"How often an epoch of trial {best.number}, the best, showed each class (sampler {sampler}, mean of {len(counts)} epochs)"
    yield table_of(caption, ("class", "images shown", "share"), rows, (1, 2), most=MOST_CLASSES, folded=True)


def _trials_table(search: Search) -> Table:
    paths = [dimension.path for dimension in search.space]
    best_first = ranked(search.trials, search.metric)
    rest = [trial for trial in search.trials if trial.score is None]
    rows = [
        (
            str(trial.number),
            trial.state,
            as_number(trial.score),
            str(len(trial.curve)),
            f"{trial.seconds / 60:.1f}",
            ", ".join(f"{path} {words(trial.values[path])}" for path in paths if path in trial.values),
            trial.reason,
        )
        for trial in (*best_first, *rest)
    ]
    head = ("trial", "outcome", search.metric.title, "epochs", "minutes", "drawn values", "why it ended")
    return table_of("All trials, best first", head, rows, (0, 2, 3, 4), folded=True)


def _probes(run: Run) -> Iterator[Part]:
    found, metric = run.search.probes, run.search.metric
    if not found.rows:
        yield Words("No probe came before the search: run/probe is false, or no backbone of the space has weights.", "missing")
        return
    yield Words(
        "Heads made at once for the features of backbones that are not trained here: linear ones, and such of texts (zero-shot), which are "
        f"trials that vote and predict like others, and the nearest training images. Guessing scores {as_number(found.guess)}."
    )
    rows = [
        (
            "" if row.trial is None else str(row.trial),
            row.backbone,
            row.view,
            PurePath(row.weights).name,  # the folder of a file would take up the line
            row.method,
            as_number(row.score),
            number_range(row.interval, metric.bounds),
            f"{row.seconds:.1f}",
            f"{row.milliseconds:.1f}",
        )
        for row in found.rows
    ]
    head = ("trial", "backbone", "view", "weights", "heads", metric.title, "95 % CI", "seconds", "ms an image")
    if found.left_out:
        yield Words(f"There was no time for {'; '.join(found.left_out)}.")
    yield table_of("Probes, best first", head, rows, (0, 5, 6, 7, 8), folded=len(rows) > PROBES)


def _curves(run: Run) -> Iterator[Part]:
    scored = run.search.scored
    shown = f" The best {HIGHLIGHTED} stand out." if len(scored) > HIGHLIGHTED else ""
    if len(scored) > MOST + HIGHLIGHTED:
        shown += f" Of the other {len(scored) - HIGHLIGHTED:,} curves, {MOST} are drawn, evenly spread from the best to the worst."
    yield Picture(
        f"curves{run.suffix}",
        f"{run.search.metric.capital} on validation by epoch, a line a trial",
        f"{len(scored):,} trials.{shown} The thick line is the best one; marks show how each ended. "
        "Dashed lines are rungs, where trials are stopped.",
        curves_figure(scored, rungs(scored), run.search.metric),
    )


def _settings_together(run: Run) -> Iterator[Part]:
    axes, rest = _axes(run.search)
    if not axes:
        yield no_space(run.search)
        return
    scored = run.search.scored
    more = f" {rest} more settings are left out: those that fewer trials drew, or that mattered less." if rest else ""
    if len(scored) > MOST:
        more += f" {MOST} of {len(scored):,} trials are drawn, evenly spread from the best to the worst."
    yield Picture(
        f"parallel{run.suffix}",
        "Each trial as a line through its settings to its score",
        f"A line a trial, coloured by its score; the last axis is {run.search.metric.title} on validation. n = {len(scored):,}.{more}",
        parallel_figure(parallel_lines(scored, axes, run.search.metric), axes),
    )


def _axes(search: Search) -> tuple[list[Dimension], int]:
    """The dimensions that most trials drew and that decided most, in the space's order, and how many are left out."""
    drew = {one.path: sum(one.path in trial.values for trial in search.scored) for one in search.space}
    there = [one for one in search.space if drew[one.path]]
    shares = {path: share for branch in importances(search.scored, search.space, search.metric)[:1] for path, share in branch.shares or ()}
    kept = sorted(there, key=lambda one: (-drew[one.path], -shares.get(one.path, 0.0)))[:AXES]
    return [one for one in there if one in kept], len(there) - len(kept)


def _importance(run: Run) -> Iterator[Part]:
    branches = importances(run.search.scored, run.search.space, run.search.metric)
    if not branches:
        yield no_space(run.search)
        return
    shown = [branch for branch in branches if branch.shares]
    if shown:
        yield Picture(
            f"importance{run.suffix}",
            "Share of the importance of each setting, by branch of the space",
            "How much each setting mattered for a trial to be among the best (PED-ANOVA), within the trials of each branch; the branch's "
            "own settings are dark. With few trials such shares are rough: n is their number.",
            importance_figure(shown),
        )
    few = [f"{branch.when} (n = {branch.trials})" for branch in branches if branch.shares is None]
    if few:
        yield Words(f"Too few trials to tell, fewer than {FEWEST}: {'; '.join(few)}.")
    alike = [branch.when for branch in branches if branch.shares == ()]
    if alike:
        yield Words(f"Nothing varied among the trials of: {'; '.join(alike)}.")


def _values(run: Run) -> Iterator[Part]:
    metric = run.search.metric
    found = setting_scores(ranked(run.search.trials, metric), run.search.space, metric)
    if not found:
        yield no_space(run.search)
        return
    choices = [setting for setting in found if setting.choices]
    numbers = [setting for setting in found if setting.points]
    caption = "A point a trial. Settings were drawn together, not one at a time, and trials that were stopped count with what they reached."
    if choices:
        yield Picture(f"choices{run.suffix}", "Scores by choice, for each searched choice", caption, choices_figure(choices, metric))
        rows = [
            (
                setting.path,
                choice.value,
                str(len(choice.scores)),
                as_number(choice.median),
                number_range(choice.interval, metric.bounds),
                as_number(choice.best),
            )
            for setting in choices
            for choice in setting.choices
        ]
        head = ("setting", "value", "trials", f"median {metric.title}", "95 % CI of the median", "best")
        yield table_of("What each choice gave", head, rows, (2, 3, 4, 5), most=200, folded=True)
    if numbers:
        caption = "A point a trial; the best trial is dark."
        yield Picture(f"numbers{run.suffix}", "Scores by value, for each searched number", caption, numbers_figure(numbers, metric))


def _fidelity(run: Run) -> Iterator[Part]:
    found = run.search.fidelity
    if not found:
        if rungs(run.search.trials):
            yield Words("The search writes fidelity.json, which is not there:", "missing", typed(f"tuner.run --resume {run.search.called}"))
        else:
            yield Words("No trial was stopped by its early epochs.", "missing")
        return
    yield Picture(
        f"fidelity{run.suffix}",
        "Rank correlation of early with final scores",
        "Where early scores rank the trials as the final ones do (1), stopping early loses nothing; near 0 it is chance. Only "
        "trials that ran to the end can tell; that their early scores lie closer together than those of all is corrected for.",
        fidelity_figure(found, MISLEADING),
    )


def _costs(run: Run) -> Iterator[Part]:
    search = run.search
    found = costs(search.trials, search.card.gpus_per_trial, search.metric)
    yield Picture(
        f"cost{run.suffix}",
        "Hours of training by outcome",
        "Training and validation; loading images and models is not included.",
        costs_figure(found),
    )
    rows: list[tuple[str, ...]] = [
        (cost.state, f"{cost.trials:,}", f"{cost.epochs:,}", f"{cost.hours:.3g}", f"{cost.gpu_hours:.3g}", as_number(cost.best))
        for cost in found
    ]
    rows.append(
        (
            "together",
            f"{sum(cost.trials for cost in found):,}",
            f"{sum(cost.epochs for cost in found):,}",
            f"{sum(cost.hours for cost in found):.3g}",
            f"{sum(cost.gpu_hours for cost in found):.3g}",
            as_number(best_of(search.metric, (cost.best for cost in found))),
        )
    )
    head = ("outcome", "trials", "epochs", "hours of training", "GPU hours", f"best {search.metric.title}")
    yield Table("Cost by outcome", head, tuple(rows), (1, 2, 3, 4, 5))
    devices = sorted({trial.device for trial in search.trials if trial.device})
    whole = search.card.gpus_per_trial is None and any(not device.startswith("CPU") for device in devices)
    counted = " Each trial on a GPU counts as if it had all of it." if whole else ""
    yield Words(f"Trained on: {'; '.join(devices) or 'unknown'}.{counted}")


TOPICS: dict[str, tuple[str, Topic]] = {
    "history": ("How the search went", _history),
    "probes": ("What untrained backbones see", _probes),
    "curves": ("Learning curves", _curves),
    "parallel": ("Settings side by side", _settings_together),
    "importance": ("Which settings mattered", _importance),
    "values": ("What each value gave", _values),
    "fidelity": ("Could early epochs be trusted?", _fidelity),
    "cost": ("What it cost", _costs),
}
