"""The page: sections as one HTML file that needs no other, and their pictures as files beside it."""

from collections.abc import Sequence

from analysis.figures.style import as_png
from analysis.pages.page import PAGE, sections_page
from analysis.pages.parts import Picture, Section
from trainables.record import list_folders
from trainables.storage import Folder, write_atomically


def html(title: str, sections: Sequence[Section]) -> bytes:
    """The page."""
    return sections_page(title, "report", sections)


def write_report(folder: Folder, title: str, sections: Sequence[Section]) -> list[Folder]:
    """Write the page and a PNG for each picture; pictures of an earlier report that this one does not have are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {f"{part.name}.png": part for section in sections for part in section.parts if isinstance(part, Picture)}
    for file in list_folders(folder):
        if file.name.endswith(".png") and file.name not in pictures:
            file.unlink()
    for name, picture in pictures.items():
        write_atomically(folder / name, as_png(picture.figure))
    write_atomically(folder / PAGE, html(title, sections))
    return [folder / PAGE, *(folder / name for name in pictures)]
