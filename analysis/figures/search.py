"""The records of a search as pictures."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from analysis.evaluation.calibration import CalibrationError
from analysis.evaluation.fidelity import Fidelity
from analysis.evaluation.search.history import Cost, Line, Rung, Step, ranked, thinned
from analysis.evaluation.search.importance import Branch, leading
from analysis.evaluation.search.reading import STATES, SearchedTrial
from analysis.evaluation.search.space import Dimension, words
from analysis.evaluation.search.values import SettingScores
from analysis.figures.style import BLUE, GRID, INK, ORANGE, PALE, PAPER, PURPLE, RED, RULE, blank, shade, shortened, styled
from trainables.metrics import Metric

# Outcomes differ in shape as well as in colour.
MARKS = {"finished": ("o", BLUE), "stopped": ("s", ORANGE), "interrupted": ("^", PURPLE), "failed": ("X", RED)}
HIGHLIGHTED = 20  # curves that stand out
MOST = 400  # curves, lines and points of a kind in one picture: more cannot be told apart, and the page has to open on a phone
WIDTH = 5.2  # inches, like all lengths here: as wide as a phone can show without making the text too small to read


class Scored(Protocol):
    """An answer with its score."""

    @property
    def name(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float] | None: ...


@styled
def answers_figure(answers: Sequence[Scored], chosen: str, metric: Metric) -> Figure:
    """The score of each answer with its interval; the chosen one stands out."""
    figure = blank(WIDTH, 0.8 + 0.38 * len(answers))
    axes = figure.subplots()
    for row, answer in enumerate(answers):
        colour = BLUE if answer.name == chosen else PALE
        if answer.interval:
            axes.plot(answer.interval, (row, row), color=colour, linewidth=2.2 if answer.name == chosen else 1.4, solid_capstyle="butt")
        axes.plot(answer.score, row, "o", color=colour, markersize=6)
        axes.annotate(f"{answer.score:.3f}", (answer.score, row), (0, 5), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(answers)), [answer.name for answer in answers], color=INK)
    axes.set(ylim=(len(answers) - 0.5, -0.7), xlabel=f"{metric.title} on the test images; lines: 95 % CI")
    _quiet(axes, grid="x")
    figure.tight_layout()
    return figure


@styled
def history_figure(steps: Sequence[Step], metric: Metric) -> Figure:
    """The score of each trial and the best so far, by order and by hours of training."""
    figure = blank(WIDTH, 5.4)
    by_order, by_hours = figure.subplots(2, 1)
    shown = [step for step in steps if step.score is not None]
    for axes, place in ((by_order, lambda step: step.number), (by_hours, lambda step: step.hours)):
        for state in STATES:
            own = thinned([step for step in shown if step.state == state], MOST)
            mark, colour = MARKS[state]
            style = {"markersize": 5 if len(shown) <= MOST else 2.5, "alpha": 0.85, "markeredgewidth": 0}
            axes.plot([place(step) for step in own], [step.score for step in own], mark, color=colour, **style)
        axes.step([place(step) for step in shown], [step.best for step in shown], where="post", color=INK, linewidth=1.2)
        _quiet(axes, grid="y")
    scored = [(step.number, step.score) for step in steps if step.score is not None]
    number, score = next(point for point in scored if point[1] == shown[-1].best)
    _point_at(by_order, (number, score), f"trial {number}: {score:.3f}")
    by_order.set(xlabel="trial", ylabel=on_validation(metric))
    by_order.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_hours.set(xlabel="hours of training, all trials added", ylabel=on_validation(metric))
    by_hours.xaxis.set_major_locator(MaxNLocator(5))
    _state_legend(figure, [step.state for step in shown])
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    return figure


@styled
def curves_figure(trials: Sequence[SearchedTrial], rungs: Sequence[Rung], metric: Metric) -> Figure:
    """Scores by epoch: the best trials stand out, the best one most; dashed lines are the rungs."""
    figure = blank(WIDTH, 3.8)
    axes = figure.subplots()
    best_first = ranked(trials, metric)
    top, others = best_first[:HIGHLIGHTED], thinned(best_first[HIGHLIGHTED:], MOST)
    axes.add_collection(LineCollection([trial.curve for trial in others], colors=RULE, linewidths=0.6, alpha=0.7))
    axes.add_collection(LineCollection([trial.curve for trial in top], colors=BLUE, linewidths=0.9, alpha=0.65))
    for trial in (*others, *top):  # what ended early is a point and no line
        mark, colour = MARKS[trial.state]
        axes.plot(*trial.curve[-1], mark, color=colour, markersize=3.5, alpha=0.8, markeredgewidth=0)
    best = best_first[0]
    axes.plot(*zip(*best.curve, strict=True), color=INK, linewidth=1.8)
    axes.autoscale_view()
    epoch, score = next(point for point in reversed(best.curve) if point[1] == best.score)
    _point_at(axes, (epoch, score), f"trial {best.number}: {score:.3f}")
    for rung in rungs:
        axes.axvline(rung.epoch, color=PALE, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
        text = f"{rung.passed} of {rung.evaluated}\npassed"
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (rung.epoch, 0), (4, 3), fontsize=7.5, color=PALE, va="bottom", **place)
    axes.set(xlabel="epoch", ylabel=on_validation(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _quiet(axes, grid="y")
    _state_legend(figure, [trial.state for trial in best_first])
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    return figure


@styled
def parallel_figure(lines: Sequence[Line], axes_of: Sequence[Dimension]) -> Figure:
    """A line a trial through its settings to its score; the darker the better in light colours, the brighter in dark ones."""
    gaps = any(place is None for line in lines for place in line.places)
    missing = -0.16 if gaps else 0.0  # left of the axes: the trial drew no such value
    count = len(axes_of) + 1
    figure = blank(WIDTH, 0.5 + 0.62 * count)
    axes = figure.subplots()
    low, high = lines[0].score, lines[-1].score
    shares = [(line.score - low) / (high - low) if high != low else 1.0 for line in lines]
    shown = thinned(range(len(lines)), MOST)
    ways = [[missing if place is None else place for place in lines[row].places] + [shares[row]] for row in shown]
    axes.add_collection(
        LineCollection(
            [[(place, row) for row, place in enumerate(way)] for way in ways],
            colors=[shade(0.25 + 0.75 * shares[row]) for row in shown],
            linewidths=[0.7 + 1.3 * shares[row] ** 3 for row in shown],
            alpha=[1.0 if row >= len(lines) - HIGHLIGHTED else 0.3 for row in shown],
        )
    )
    box = {"facecolor": PAPER, "alpha": 0.8, "linewidth": 0, "pad": 0.8}
    below = {"xytext": (0, -4), "textcoords": "offset points", "color": INK, "va": "top"}
    for row, axis in enumerate(axes_of):
        axes.axhline(row, color=RULE, linewidth=0.9, zorder=0)
        choice = axis.kind == "choice"
        # Of many choices the first and the last are named: between them there is no room for words.
        ends = axis.values if choice and len(axis.values) <= 3 else (axis.values[0], axis.values[-1])
        for end, value in enumerate(ends):
            place = axis.place(value) if choice else float(end)
            side = "left" if place == 0.0 else "right" if place == 1.0 else "center"
            axes.annotate(shortened(words(value), 20), (place, row), fontsize=8, ha=side, bbox=box, **below)
    axes.axhline(count - 1, color=INK, linewidth=1.1, zorder=0)
    for place, score, side in ((0.0, low, "left"), (1.0, high, "right")):
        axes.annotate(f"{score:.3f}", (place, count - 1), fontsize=9, weight="bold", ha=side, **below)
    if gaps:
        axes.text(missing, -0.3, "not drawn", fontsize=8, color=PALE, va="bottom", ha="left")
    names = [axis.path.replace("/", "/\n") + ("\n(log)" if axis.log else "") for axis in axes_of]
    axes.set_yticks(range(count), [*names, "score"], fontsize=8.5, color=INK)
    axes.set(ylim=(count - 0.45, -0.55), xlim=(missing - 0.03, 1.03), xticks=[])
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    return figure


@styled
def importance_figure(branches: Sequence[Branch]) -> Figure:
    """Shares of importance within each branch that has enough trials; the branch's own settings stand out."""
    leaders = [leading(branch) for branch in branches]
    rows = sum(len(shares) + 1.6 for shares in leaders)
    figure = blank(WIDTH, 0.5 + 0.25 * rows)
    axes = figure.subplots()
    row, ticks = 0.0, []
    for branch, shares in zip(branches, leaders, strict=True):
        axes.text(0, row, f"{branch.when}   n = {branch.trials}", weight="bold", color=INK, va="center")
        row += 1
        for path, share in shares:
            axes.barh(row, share, height=0.62, color=BLUE if path in branch.own else RULE)
            axes.text(share + 0.008, row, f"{share:.0%}", fontsize=8, color=INK, va="center")
            ticks.append((row, path))
            row += 1
        row += 0.6
    axes.set_yticks([place for place, _ in ticks], [path for _, path in ticks], color=INK)
    axes.set(ylim=(row - 0.5, -0.8), xlabel="share of the importance within the branch", xlim=(0, 1.08))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_xticks(np.linspace(0, 1, 6))
    _quiet(axes, grid="x")
    figure.tight_layout()
    return figure


@styled
def choices_figure(settings: Sequence[SettingScores], metric: Metric) -> Figure:
    """A row for each choice: a point a trial, the median, and its interval."""
    rows = sum(len(setting.choices) + 1.3 for setting in settings)
    figure = blank(WIDTH, 0.6 + 0.26 * rows)
    axes = figure.subplots()
    row, ticks = 0.0, []
    for setting in settings:
        axes.text(0, row, setting.path, weight="bold", color=INK, va="center", ha="right", transform=axes.get_yaxis_transform())
        row += 1
        for choice in setting.choices:
            scores = thinned(choice.scores, MOST)
            # Where points lie close, the median has to be seen through them.
            faint = 0.45 if len(scores) < 50 else 0.15
            axes.plot(scores, [row] * len(scores), "o", color=BLUE, markersize=4, alpha=faint, markeredgewidth=0)
            if choice.interval:
                axes.plot(choice.interval, (row, row), color=INK, linewidth=1.2)
            if choice.median is not None:
                axes.plot(choice.median, row, "|", color=INK, markersize=11, markeredgewidth=2)
            axes.text(1.01, row, f"n = {len(choice.scores)}", fontsize=8, color=PALE, va="center", transform=axes.get_yaxis_transform())
            ticks.append((row, shortened(choice.value, 22)))
            row += 1
        row += 0.3
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], color=INK)
    axes.set(ylim=(row - 0.3, -0.8), xlabel=f"{on_validation(metric)}; bar: median, line: its 95 % CI")
    _quiet(axes, grid="x")
    figure.tight_layout()
    return figure


@styled
def numbers_figure(settings: Sequence[SettingScores], metric: Metric) -> Figure:
    """A panel for each setting that is a number: a point a trial."""
    columns = min(2, len(settings))
    rows = -(-len(settings) // columns)
    figure = blank(WIDTH, 0.3 + 2.1 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, setting in zip(grid.flat, settings, strict=False):
        points = thinned(setting.points, MOST)
        axes.plot(*zip(*points, strict=True), "o", color=BLUE, markersize=4, alpha=0.6, markeredgewidth=0)
        axes.plot(*setting.points[0], "o", color=INK, markersize=5)
        if setting.log:
            axes.set_xscale("log")
            values = [value for value, _ in points]
            axes.set_xticks(np.geomspace(min(values), max(values), 3))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        title = f"{shortened(setting.path, 26)}\nn = {setting.trials}{', log' if setting.log else ''}"
        axes.set_title(title, fontsize=8.5, loc="left", weight="bold")
        _quiet(axes, grid="both")
    for axes in grid.flat[len(settings) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(on_validation(metric), fontsize=8)
    figure.tight_layout()
    return figure


@styled
def fidelity_figure(fidelities: Sequence[Fidelity], misleading: float) -> Figure:
    """The rank correlation between the scores at each rung and the final ones."""
    figure = blank(WIDTH, 0.9 + 0.42 * len(fidelities))
    axes = figure.subplots()
    axes.axvspan(-1.2, misleading, color=GRID, linewidth=0, zorder=0)
    axes.axvline(0, color=RULE, linewidth=0.9)
    for row, found in enumerate(fidelities):
        if found.correlation is None:
            axes.text(0.02, row, "too few trials to tell", fontsize=8, color=PALE, va="center")
            continue
        axes.plot((0, found.correlation), (row, row), color=BLUE, linewidth=2)
        axes.plot(found.correlation, row, "o", color=BLUE, markersize=6)
        side, place = ("left", 0.05) if found.correlation >= 0 else ("right", -0.05)
        axes.text(found.correlation + place, row, f"{found.correlation:z.2f}", fontsize=8, color=INK, va="center", ha=side)
    names = [f"epoch {found.epoch}, n = {found.trials}\n{shortened(found.backbone or 'all trials', 22)}" for found in fidelities]
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set(xlim=(-1.2, 1.2), ylim=(len(names) - 0.4, -0.6), xlabel=f"rank correlation with the final score (shaded: below {misleading})")
    _quiet(axes, grid=None)
    figure.tight_layout()
    return figure


@styled
def costs_figure(found: Sequence[Cost]) -> Figure:
    """Hours of training by how the trials ended."""
    figure = blank(WIDTH, 0.8 + 0.38 * len(found))
    axes = figure.subplots()
    most, total = max(cost.hours for cost in found) or 1.0, sum(cost.hours for cost in found) or 1.0
    for row, cost in enumerate(found):
        axes.barh(row, cost.hours, height=0.6, color=MARKS[cost.state][1])
        axes.text(cost.hours + most * 0.01, row, f"{cost.hours:.3g} h, {cost.hours / total:.0%}", fontsize=8.5, color=INK, va="center")
    axes.set_yticks(range(len(found)), [f"{cost.state} ({cost.trials:,})" for cost in found], color=INK)
    axes.set(xlim=(0, most * 1.45), ylim=(len(found) - 0.4, -0.6), xlabel="hours of training")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _quiet(axes, grid="x")
    figure.tight_layout()
    return figure


@styled
def reliability_figure(found: CalibrationError) -> Figure:
    """How often an answer of some confidence was right; on the dashed line the two agree. Points are as large as they have images."""
    figure = blank(5.2, 4.4)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color=RULE, linewidth=1, linestyle=(0, (3, 3)))
    axes.text(0.03, 0.95, "under-confident", fontsize=8, color=PALE, va="top")
    axes.text(0.97, 0.04, "over-confident", fontsize=8, color=PALE, ha="right")
    confidence, accuracy, images = (np.array([getattr(one, name) for one in found.bins]) for name in ("confidence", "accuracy", "photos"))
    axes.plot(confidence, accuracy, color=BLUE, linewidth=1.2)
    axes.scatter(confidence, accuracy, 15 + 150 * images / images.max(), color=BLUE, linewidths=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    _quiet(axes, grid="both")
    figure.tight_layout()
    return figure


def on_validation(metric: Metric) -> str:
    """What scores are called beside an axis."""
    return f"{metric.title} on validation"


def _quiet(axes: Axes, grid: Literal["x", "y", "both"] | None) -> None:
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _point_at(axes: Axes, point: tuple[float, float], text: str) -> None:
    """A ring and its words, on the side that has room for them."""
    axes.plot(*point, "o", markersize=9, markerfacecolor="none", color=INK)
    low, high = axes.get_xlim()
    right = point[0] < (low + high) / 2
    axes.annotate(
        text, point, (8 if right else -8, 7), textcoords="offset points", ha="left" if right else "right", fontsize=8.5, color=INK
    )
    axes.margins(y=0.12)


def _state_legend(figure: Figure, states: Sequence[str]) -> None:
    """The mark of each outcome with the number of its trials, above the panels."""
    handles = []
    for state in STATES:
        if count := states.count(state):
            mark, colour = MARKS[state]
            (handle,) = figure.axes[0].plot([], [], mark, color=colour, markersize=6, markeredgewidth=0, label=f"{state} ({count:,})")
            handles.append(handle)
    style = {"fontsize": 8.5, "labelcolor": INK, "borderaxespad": 0.2, "columnspacing": 1.0, "handletextpad": 0.2}
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), **style)
