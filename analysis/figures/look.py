"""How many images have what, as pictures: bars of classes, histograms of numbers and sizes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.evaluation.look.facts import Histogram
from analysis.figures.style import BLUE, GRID, INK, ORANGE, PALE, PURPLE, RED, blank, shortened, styled

MOST = 30  # bars
LONGEST = 30  # characters of a name
COLOURS = (BLUE, ORANGE, RED, PURPLE)


@styled
def counts_figure(names: Sequence[str], counts: Sequence[int], groups: Sequence[int]) -> Figure:
    """Images of each class as bars, with the count and that of groups."""
    shown = range(min(MOST, len(names)))
    width, row, top = 7.6, 0.3, 0.45
    height = top + row * len(shown) + 0.1
    figure = blank(width, height)
    axes = figure.add_axes((0.3, 0.1 / height, 0.52, row * len(shown) / height))
    axes.barh(shown, [counts[place] for place in shown], height=0.7, color=BLUE)
    axes.set(ylim=(len(shown) - 0.5, -0.5), xticks=[])
    axes.set_yticks(shown, [shortened(names[place], LONGEST) for place in shown])
    axes.tick_params(length=0, labelcolor=INK, labelsize=10)
    axes.spines[:].set_visible(False)
    for place in shown:
        own = groups[place]
        words = f"{counts[place]:,}" + (f" ({own:,} group{'s' if own != 1 else ''})" if own != counts[place] else "")
        axes.annotate(words, (counts[place], place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9.5)
    figure.text(0.3, 1 - 0.25 / height, "images", color=PALE, fontsize=9, va="center")
    return figure


@styled
def histogram_figure(found: Histogram) -> Figure:
    """How many images have a number; of several values of a target the share of the images of each, so that rare ones show."""
    figure = blank(7.6, 3.0)
    axes = figure.add_axes((0.1, 0.17, 0.87, 0.76))
    edges = np.array(found.edges)
    if len(found.series) == 1:
        axes.stairs(found.series[0][1], edges, fill=True, color=BLUE)
        axes.set_ylabel("images", fontsize=10)
    else:
        for (name, counts), colour in zip(found.series, COLOURS, strict=False):
            total = max(1, sum(counts))
            axes.stairs(np.array(counts) / total, edges, color=colour, linewidth=1.8, label=f"{shortened(name, LONGEST)} ({total:,})")
        axes.set_ylabel("share of the images", fontsize=10)
        axes.legend(fontsize=9, labelcolor=INK, frameon=False)
    for mark in found.marks:
        axes.axvline(mark - 0.5, color=RED, linewidth=1.2, linestyle="--")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0)
    axes.set_xlabel(shortened(found.name, 60), fontsize=10)
    axes.grid(color=GRID, axis="y")
    axes.set_axisbelow(True)
    return figure
