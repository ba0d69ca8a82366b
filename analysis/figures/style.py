"""What all pictures share: colours that have a light and a dark shade, and their two forms, PNG files and SVG for pages.

Pictures are drawn in the light shades. In the SVG for a page each shade becomes a CSS variable of its name, so that one picture
serves both a light page and a dark one.
"""

import io
import re

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.colours import LIGHT

INK, PALE, RULE, GRID, PAPER = (LIGHT[name] for name in ("ink", "pale", "rule", "grid", "paper"))
BLUE, ORANGE, RED, PURPLE = (LIGHT[name] for name in ("blue", "orange", "red", "purple"))
STEPS = 9  # of the scale

# Names in a picture are the data's own: a dollar sign in one begins no formula. Text stays text, so that pages can search and read it.
styled = matplotlib.rc_context(
    {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": RULE,
        "axes.labelcolor": PALE,
        "axes.titlecolor": INK,
        "axes.grid": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": PALE,
        "ytick.labelcolor": PALE,
        "grid.color": GRID,
        "legend.frameon": False,
        "axes.facecolor": "none",
    }
)


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches that draws on no screen."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def shortened(text: str, most: int) -> str:
    """The text with its middle left out where it is long: names of one family differ at their ends."""
    end = most // 2
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def shade(share: float) -> str:
    """The colour of the scale for a number from 0 to 1."""
    return LIGHT[f"scale{round(share * (STEPS - 1))}"]


def text_on(share: float) -> str:
    """The colour of text that can be read upon `shade(share)`."""
    return LIGHT["on"] if round(share * (STEPS - 1)) > 5 else INK


@styled
def as_png(figure: Figure) -> bytes:
    """The bytes of the picture as a PNG file, in the light shades."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


@styled
def as_svg(figure: Figure, name: str) -> str:
    """The picture as an element of a page: colours by CSS variables, no background, and ids that begin with `name`."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    # What stands between tags is text of the data: it is not changed.
    return re.sub(r"<[^>]+>", lambda tag: _for_page(tag[0], name), svg[svg.index("<svg") :])


VARIABLE = {shade: f"var(--{name})" for name, shade in LIGHT.items()}


def _for_page(tag: str, name: str) -> str:
    if tag.startswith("<svg"):
        # The page decides how large it is shown; the view box keeps the proportions.
        tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    return re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLE.get(found[0], found[0]), tag)
