"""What a page is made of: sections, and in them words, tables and pictures as plain records."""

from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

from analysis.pages.tables import Table


@dataclass(frozen=True)
class Words:
    """A sentence or a few; the tone `missing` is for what another command has yet to make, `lead` for what matters most."""

    text: str
    tone: Literal["plain", "lead", "missing", "warning"] = "plain"
    command: str = ""  # to type, after the text
    link: str = ""  # to another page, after the text: its address from this one
    kind: str = "words"


@dataclass(frozen=True)
class Heading:
    """Which run what follows is of, where there are several."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, on the page and as a PNG file of its own."""

    name: str  # of the file
    alt: str  # what it shows, for those who cannot see it
    caption: str
    figure: Figure
    folded: bool = False  # shown when asked for
    kind: str = "picture"


@dataclass(frozen=True)
class Listing:
    """A text as it stands in a file."""

    caption: str
    text: str
    kind: str = "listing"


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image."""

    name: str
    source: str  # a data URI; empty where the image cannot be opened
    words: str = ""  # under it


@dataclass(frozen=True)
class Strip:
    """Images that have something in common."""

    name: str
    images: tuple[Thumbnail, ...]
    words: str = ""  # after the name


@dataclass(frozen=True)
class Sheet:
    """Images for people to look at, in strips."""

    caption: str
    rows: tuple[Strip, ...]
    rest: int = 0  # strips that are not shown
    kind: str = "sheet"


Part = Words | Heading | Picture | Table | Listing | Sheet


@dataclass(frozen=True)
class Section:
    """One topic of the page."""

    id: str
    title: str
    parts: tuple[Part, ...]
