"""What scores cost, as a picture."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.style import BLUE, GRID, INK, ORANGE, PALE, PURPLE, RED, blank, shortened, styled
from trainables.metrics import Metric

SIZE = (5.2, 3.8)  # inches: as wide as a phone can show
LONGEST = 26  # characters of a name
ACROSS = 78  # characters of a line of names
Sort = Literal["single model", "soup", "vote", "vote with its steps", "student", "exported file"]
MARKS: dict[Sort, tuple[str, str]] = {
    "single model": ("o", PALE),
    "soup": ("D", ORANGE),
    "vote": ("s", BLUE),
    "vote with its steps": ("^", PURPLE),
    "student": ("*", RED),
    "exported file": ("x", INK),
}


@dataclass(frozen=True)
class Priced:
    """What answers, alone or with others, and what that costs."""

    name: str
    sort: Sort
    ms: float  # an image that comes alone
    score: float  # by the run's metric
    interval: tuple[float, float] | None  # 95 %


def pareto_front(found: Sequence[Priced], sign: int) -> list[Priced]:
    """Those that nothing as cheap, or cheaper, equals, the cheapest first.

    Args:
        sign: of the metric, 1 where higher is better.
    """
    front: list[Priced] = []
    for one in sorted(found, key=lambda one: (one.ms, -sign * one.score)):
        if not front or sign * one.score > sign * front[-1].score:
            front.append(one)
    return front


@styled
def price_figure(found: Sequence[Priced], metric: Metric) -> Figure:
    """Scores with their intervals by milliseconds an image; the front is joined, numbered and named."""
    figure = blank(*SIZE)
    axes = figure.subplots()
    front = pareto_front(found, metric.sign)
    axes.step([one.ms for one in front], [one.score for one in front], where="post", color=RED, linewidth=1.2, zorder=1)
    for sort, (mark, colour) in MARKS.items():
        own = [one for one in found if one.sort == sort]
        for one in own:
            if one.interval:
                axes.plot((one.ms, one.ms), one.interval, color=colour, linewidth=1.2, alpha=0.6, zorder=2)
        if own:
            axes.plot([one.ms for one in own], [one.score for one in own], mark, color=colour, markersize=6, label=sort, zorder=3)
    low, high = min(one.ms for one in found), max(one.ms for one in found)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.3, high * 1.3)
    # Names would lie on each other: points of the front are often close in time, or in score.
    for number, one in enumerate(front, start=1):
        axes.annotate(str(number), (one.ms, one.score), (-5, 5), textcoords="offset points", ha="right", fontsize=8, color=INK)
    named = textwrap.wrap("   ".join(f"{number} {shortened(one.name, LONGEST)}" for number, one in enumerate(front, start=1)), ACROSS)
    figure.text(0.02, 0.02, "\n".join(named), fontsize=8, color=INK, va="bottom")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="milliseconds an image", ylabel=f"{metric.title} (lines: 95 % CI)")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    figure.legend(loc="upper center", ncols=2, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.02 + 0.045 * len(named), 1, 0.9))
    return figure
