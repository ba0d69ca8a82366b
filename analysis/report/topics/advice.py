"""What would help most: what `analysis.advise` found, or as much of it as the records tell."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from analysis.evaluation.advice import (
    ADVICE,
    NOISE,
    Advice,
    Learning,
    advice_lines,
    ceiling_words,
    ends_words,
    learning_note,
    needs_words,
    read_advice,
    read_noise,
)
from analysis.evaluation.ceiling import ceiling_in
from analysis.evaluation.needs import SCORED, Need, needs_in
from analysis.evaluation.search.ends import ends_in
from analysis.evaluation.search.reading import Search, lenient
from analysis.members.trials import load_runs
from analysis.pages.parts import Part, Words
from analysis.pages.tables import Table, as_number, number_range, signed, table_of
from trainables.commands import typed
from trainables.data.targets import Kind
from trainables.metrics import Metric
from trainables.record import RunError


def advice_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    metric = search.metric
    found = lenient(search.folder, ADVICE, read_advice, None, damaged)
    if not isinstance(found, Advice):
        yield from _without_training(search, damaged)
        return
    yield Words(f"As it was when {found.trial} was the best trial, with {metric.title} {found.score:.3f}; ranges are of today.")
    yield from map(Words, advice_lines(replace(found, ends=ends_in(search)), metric))
    if isinstance(found.learning, Learning):
        yield Words(learning_note(found.learning, metric))
        yield _curve_table(found.learning, metric)
    if not isinstance(found.needs, str) and found.needs:
        yield _needs_table(found.needs, found.kind)


def _without_training(search: Search, damaged: list[str]) -> Iterator[Part]:
    """What the records tell."""
    yield Words("Whether twice the images would help says", "missing", typed(f"analysis.advise --run {search.called}"))
    ends = ends_in(search)
    if not isinstance(ends, str):
        yield Words(ends_words(ends))
    try:
        runs = load_runs([search.folder])
    except RunError:
        return
    if noise := lenient(search.folder, NOISE, read_noise, (), damaged):
        ceiling = ceiling_in(runs, noise)
        if not isinstance(ceiling, str):
            yield Words(ceiling_words(ceiling, runs.widest.score, search.metric))
    classes = needs_in(runs, {})
    if not isinstance(classes, str):
        kind = runs.widest.task.scheme.kind
        yield Words(needs_words(classes, kind))
        if classes:
            yield _needs_table(classes, kind)


def _curve_table(learning: Learning, metric: Metric) -> Table:
    rows = [
        (f"{step.share:.1%}", f"{step.groups:,}", f"{step.images:,.0f}", as_number(step.score), number_range(step.interval, metric.bounds))
        for step in learning.curve.steps
    ]
    head = ("training groups", "groups", "images", metric.title, "95 % CI")
    return table_of(f"Score by the share of the training groups: {learning.of}", head, rows, (0, 1, 2, 3, 4))


def _needs_table(found: Sequence[Need], kind: Kind) -> Table:
    rows = [(one.name, f"{one.groups:,}", as_number(one.score), "" if one.rise is None else signed(one.rise)) for one in found]
    head = ("tag" if kind == "tags" else "class", "groups", f"{SCORED[kind]} on validation", "from half to all groups")
    return table_of("Few groups, and a score below the mean of all", head, rows, (1, 2, 3))
