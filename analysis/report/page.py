"""The page: sections as one HTML file that needs no other, and their pictures as files beside it."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.figures.style import DARK, LIGHT, as_css, as_png, as_svg
from analysis.report.parts import Picture, Section
from trainables.record import list_folders
from trainables.storage import Folder, write_whole

PAGE = "index.html"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def html(title: str, sections: Sequence[Section]) -> str:
    """The page. Whatever the data's names hold, they are text in it."""
    template = TEMPLATES.get_template("page.html.jinja")
    return template.render(title=title, sections=sections, light=Markup(as_css(LIGHT)), dark=Markup(as_css(DARK)), svg=inline)


def inline(picture: Picture) -> Markup:
    """The picture as an element of the page."""
    return Markup(as_svg(picture.figure, picture.name))


def write_report(folder: Folder, title: str, sections: Sequence[Section]) -> list[Folder]:
    """Write the page and a PNG for each picture; pictures of an earlier report that this one does not have are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {f"{part.name}.png": part for section in sections for part in section.parts if isinstance(part, Picture)}
    for file in list_folders(folder):
        if file.name.endswith(".png") and file.name not in pictures:
            file.unlink()
    for name, picture in pictures.items():
        write_whole(folder / name, as_png(picture.figure))
    write_whole(folder / PAGE, html(title, sections).encode())
    return [folder / PAGE, *(folder / name for name in pictures)]
