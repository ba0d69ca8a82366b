"""One HTML file that needs no other file and no network; whatever the data's names hold, they are text in it."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from analysis.figures.colours import DARK, LIGHT, as_css
from trainables.data.decoding import UNREADABLE, read_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.pages.parts import Section

PAGE = "index.html"
THUMBNAIL = 160  # pixels of a thumbnail's longer side, at most
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, **values: object) -> bytes:
    """The page. The template's name begins with its folder in analysis/."""
    return TEMPLATES.get_template(template).render(light=Markup(as_css(LIGHT)), dark=Markup(as_css(DARK)), **values).encode()


def inline(figure: "Figure", name: str) -> Markup:
    """The figure as an element of the page; the name begins its ids."""
    from analysis.figures.style import as_svg

    return Markup(as_svg(figure, name))


def sections_page(title: str, what: str, sections: "Sequence[Section]") -> bytes:
    """A page of sections with a table of contents.

    Args:
        what: the page is, after its title in the browser's tab.
    """
    return render(
        "pages/sections.html.jinja", title=title, what=what, sections=sections, svg=lambda picture: inline(picture.figure, picture.name)
    )


def thumbnail(file: Path) -> str:
    """The image, upright and small, as a data URI; empty where it cannot be opened."""
    try:
        image = read_image(file)
    except UNREADABLE:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return jpeg_uri(image)


def jpeg_uri(image: Image.Image) -> str:
    """The image as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
