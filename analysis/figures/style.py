"""What all pictures share: colours that have a light and a dark shade, and their two forms, PNG files and SVG for pages.

Pictures are drawn in the light shades. In the SVG for a page each shade becomes a CSS variable of its name, so that one picture
serves both a light page and a dark one.
"""

import io
import re
from collections.abc import Mapping

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# No two light shades are alike: a shade in a picture tells the name. Hues are of the set of Okabe and Ito, Color Universal Design, 2008,
# which are distinct in every kind of colour vision.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b2733",
    "pale": "#566675",
    "rule": "#9fb0bf",
    "grid": "#e8edf2",
    "blue": "#0072b2",
    "orange": "#d18700",
    "red": "#c9420b",
    "purple": "#a8548a",
    "on": "#fdfdfd",  # text on the upper end of the scale
    "scale0": "#f4f8fc",
    "scale1": "#deebf7",
    "scale2": "#c6dbef",
    "scale3": "#9ecae1",
    "scale4": "#6baed6",
    "scale5": "#4f9bcc",
    "scale6": "#2171b5",
    "scale7": "#08519c",
    "scale8": "#08306b",
}
DARK = {
    "paper": "#10171e",
    "ink": "#e6edf3",
    "pale": "#9fb0bf",
    "rule": "#5a6a78",
    "grid": "#24303b",
    "blue": "#5db4f0",
    "orange": "#f0b040",
    "red": "#ff8459",
    "purple": "#e3a1cb",
    "on": "#0b1219",
    "scale0": "#17212b",
    "scale1": "#1b2f41",
    "scale2": "#1f3b55",
    "scale3": "#24496b",
    "scale4": "#295680",
    "scale5": "#2f6496",
    "scale6": "#6fa8d6",
    "scale7": "#9cc7ea",
    "scale8": "#cfe6fb",
}
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


def as_css(shades: Mapping[str, str]) -> str:
    """The declarations of the shades as CSS variables."""
    return " ".join(f"--{name}: {shade};" for name, shade in shades.items())
