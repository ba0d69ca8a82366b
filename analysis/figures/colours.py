"""The colours of pictures and pages, in a light and a dark shade."""

from collections.abc import Mapping

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


def as_css(shades: Mapping[str, str]) -> str:
    """The declarations of the shades as CSS variables."""
    return " ".join(f"--{name}: {shade};" for name, shade in shades.items())
