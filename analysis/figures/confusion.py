"""The confusion matrix as a picture."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.style import GRID, INK, PALE, RULE, blank, shade, shortened, styled, text_on
from trainables.data.targets import Scheme

CELL, ROOM = (0.28, 0.6), 9.0  # inches, like all lengths here: of a cell, and of all cells where they fit into it
LONGEST = 28  # characters of a class's name


@styled
def confusion_figure(counts: np.ndarray, scheme: Scheme, title: str = "", subtitle: str = "") -> Figure:
    """Counts (classes, classes), rows true and columns predicted; colour and percentages are shares of the row.

    Lines part the values of the first target, so that errors in it stand apart from those within. Without a title the words over the
    matrix are left out, for a page that has them in its caption.
    """
    classes = scheme.classes
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, images, out=np.zeros(counts.shape), where=images > 0)
    names = [shortened(name, LONGEST) for name in scheme.class_names()]

    cell = max(CELL[0], min(CELL[1], ROOM / classes), 1.8 / classes)
    rows = [f"{name} ({count:,})" for name, count in zip(names, images[:, 0], strict=True)]
    side, longest, widest = classes * cell, *(0.075 * max(map(len, texts)) for texts in (names, rows))
    left, right, top, bottom = 0.5 + widest, 0.4, 1.35 if title else 0.1, 0.6 + 0.75 * longest
    width, height = max(left + side + right, 7.0 if title else 0.0), top + side + bottom
    figure = blank(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")

    room = cell >= 0.45  # for a percentage under the count
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=shade(share), linewidth=0))
        style = {"color": text_on(share), "textcoords": "offset points", "ha": "center", "va": "center"}
        axes.annotate(f"{counts[row, column]:,}", (column, row), (0, 5 if room else 0), fontsize=9 if room else 7, weight="bold", **style)
        if room:
            axes.annotate(f"{share:.0%}" if share >= 0.005 else "<1%", (column, row), (0, -8), fontsize=7, **style)

    axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9, color=INK)
    axes.set_yticks(range(classes), rows, fontsize=9, color=INK)
    axes.set_xlabel("predicted class", fontsize=10, color=PALE, labelpad=8)
    axes.set_ylabel("true class and its images", fontsize=10, color=PALE, labelpad=8)
    axes.set_xticks(np.arange(-0.5, classes), minor=True)
    axes.set_yticks(np.arange(-0.5, classes), minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set(color=RULE, visible=True)
    block = classes // scheme.sizes[0]
    if block > 1:
        for edge in range(block, classes, block):
            axes.axhline(edge - 0.5, color=RULE, linewidth=1.4)
            axes.axvline(edge - 0.5, color=RULE, linewidth=1.4)
    if title:
        lines = [(title, 0.38, 15, "bold", INK), (subtitle, 0.72, 10.5, "normal", INK)]
        lines.append(("Numbers are images; colour and percentages are shares of the true class.", 0.98, 9, "normal", PALE))
        for text, down, size, weight, colour in lines:
            figure.text(0.25 / width, 1 - down / height, text, fontsize=size, weight=weight, color=colour, va="center")
    return figure
