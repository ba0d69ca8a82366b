"""How an answer to tags or to a number does, as a picture."""

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import BLUE, GRID, INK, ORANGE, PALE, PURPLE, RED, RULE, blank, shortened, styled
from trainables.metrics import METRICS_OF
from trainables.metrics.metric import TAGGED

MOST = 12  # tags whose curves are drawn: those of most images
LONGEST = 28  # characters of a tag's name
COLOURS = (BLUE, ORANGE, RED, PURPLE)
STYLES = ("-", "--", ":")
SIZE = (7.0, 6.2)  # inches


@styled
def tags_figure(truth: np.ndarray, answer: np.ndarray, names: list[str], title: str = "", subtitle: str = "") -> Figure:
    """Precision over recall of each tag, with a dot where it is said to be there; of many tags those that most images have.

    Args:
        truth: whether an image has each tag (n, tags).
        answer: probabilities (n, tags).
    """
    from sklearn.metrics import precision_recall_curve

    figure, axes = _framed(title, subtitle, "Curves are precision over recall; a dot is where an image is said to have the tag.")
    counts = truth.sum(axis=0)
    shown = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]][:MOST]
    for number, place in enumerate(shown):
        precision, recall, _ = precision_recall_curve(truth[:, place], answer[:, place])
        score = METRICS_OF["tags"]["average_precision"].score(truth[:, [place]], answer[:, [place]])
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS)]
        label = f"{shortened(names[place], LONGEST)} ({counts[place]:,}): {score:.3f}"
        axes.plot(recall, precision, style, color=colour, linewidth=1.5, label=label, drawstyle="steps-post")
        tagged = answer[:, place] >= TAGGED
        hits = (tagged & truth[:, place].astype(bool)).sum()
        if tagged.any():
            axes.scatter(hits / counts[place], hits / tagged.sum(), 30, color=colour, zorder=3)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    axes.set_xlabel("recall: images with the tag that get it", fontsize=10)
    axes.set_ylabel("precision: images that get the tag and have it", fontsize=10)
    axes.grid(color=GRID)
    heading = "tag (images): average precision" + (f"\n{MOST} of {len(names)} tags" if len(names) > MOST else "")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5, title=heading, alignment="left", labelcolor=INK)
    return figure


@styled
def number_figure(truth: np.ndarray, answer: np.ndarray, name: str, title: str = "", subtitle: str = "") -> Figure:
    """Predicted numbers over true ones (n,), and below how far they are off."""
    figure, axes = _framed(title, subtitle, "Each dot is an image; the line is where predictions are right.", bottom=0.42)
    low, high = min(truth.min(), answer.min()), max(truth.max(), answer.max())
    room = 0.03 * (high - low or 1.0)
    axes.plot([low, high], [low, high], color=RULE, linewidth=1.2, zorder=1)
    axes.scatter(truth, answer, 12, color=BLUE, alpha=0.5, linewidths=0)
    axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
    axes.set_ylabel(f"predicted {shortened(name, LONGEST)}", fontsize=10)
    axes.grid(color=GRID)
    below = figure.add_axes((0.13, 0.1, 0.8, 0.24))
    below.axhline(0, color=RULE, linewidth=1.2)
    below.scatter(truth, answer - truth, 12, color=BLUE, alpha=0.5, linewidths=0)
    below.set(xlim=axes.get_xlim())
    below.set_xlabel(f"true {shortened(name, LONGEST)}", fontsize=10)
    below.set_ylabel("predicted - true", fontsize=10)
    below.grid(color=GRID)
    return figure


def _framed(title: str, subtitle: str, words: str, bottom: float = 0.1) -> tuple:
    """A figure with words over its axes."""
    width, height = SIZE if bottom > 0.1 else (SIZE[0] + 2.6, SIZE[1])
    figure = blank(width, height)
    top = 0.84 if title else 0.97
    axes = figure.add_axes((0.13 * SIZE[0] / width, bottom, 0.8 * SIZE[0] / width, top - bottom))
    lines = [(title, 0.38, 15, "bold", INK), (subtitle, 0.72, 10.5, "normal", INK), (words, 0.98, 9, "normal", PALE)] if title else []
    for text, down, size, weight, colour in lines:
        figure.text(0.25 / width, 1 - down / height, text, fontsize=size, weight=weight, color=colour, va="center")
    return figure, axes
