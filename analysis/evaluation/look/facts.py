"""What is known of labelled images, as plain records that look.json keeps and that pages are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from trainables.data.targets import Kind
from trainables.record import read_json, write_json
from trainables.storage import Folder

FILE = "look/look.json"  # in the folder of a run
Colour = tuple[float, float, float]  # red, green, blue from 0 to 255


@dataclass(frozen=True)
class ClassFacts:
    """A class, a tag, or a fifth of the numbers."""

    value: str
    images: int
    groups: int
    read: int  # of its images: those whose pixels were read
    mean: Colour | None  # of their channels; None where none was read
    deviation: Colour | None  # of their pixels


@dataclass(frozen=True)
class TargetFacts:
    """A target and what images have of it."""

    name: str
    kind: Kind
    classes: tuple[ClassFacts, ...]
    explained: float | None  # share of the variance of images' mean colours that lies between classes; None where few images were read
    without: int = 0  # images without any of the tags


@dataclass(frozen=True)
class Grid:
    """How many images have both."""

    rows_name: str
    columns_name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Histogram:
    """How many images have a number, by the values of a target or all together."""

    name: str
    edges: tuple[float, ...]
    series: tuple[tuple[str, tuple[int, ...]], ...]  # a name, and a count for each bin
    marks: tuple[float, ...] = ()  # where a target is cut


@dataclass(frozen=True)
class Alike:
    """Two images that look the same, or whose files are."""

    image: str
    other: str
    label: str
    other_label: str
    bits: int  # that differ in both hashes together
    identical: bool  # the files have the same content
    same_group: bool

    @property
    def differ(self) -> bool:
        """Whether their labels do."""
        return self.label != self.other_label


@dataclass(frozen=True)
class Finding:
    """Something that looks odd, and what to do about it."""

    kind: str  # a word that stays the same for programs
    count: int
    words: str  # what was found, with the count
    names: tuple[str, ...]  # of images, groups or values; the first ones
    fix: str  # what to do
    command: str = ""  # that helps with it


@dataclass(frozen=True)
class Facts:
    """All that was found."""

    name: str
    data: str  # where the images are
    images: int
    groups: int
    grouped: bool  # whether some group has several images
    read: int  # images whose pixels were read
    asked: int  # images that there was time and room for; some of them may be unreadable
    seconds: float
    understood: tuple[str, ...]  # how the data was read
    targets: tuple[TargetFacts, ...]
    joint: tuple[ClassFacts, ...]  # joint classes that have images, where there are several targets; most images first
    absent: int  # joint classes without an image
    grids: tuple[Grid, ...]
    numbers: tuple[Histogram, ...]
    sizes: tuple[Histogram, ...]
    formats: tuple[tuple[str, int], ...]
    alike: tuple[Alike, ...]  # the first ones: of different labels first
    pairs: int  # images that look the same, all of them
    complete: bool  # whether these are all
    findings: tuple[Finding, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the section data, as far as they were given


FACTS = TypeAdapter(Facts)


def write_facts(file: Folder, facts: Facts) -> None:
    write_json(file, FACTS.dump_python(facts, mode="json"))


def read_facts(file: Folder) -> Facts:
    """Raises: one of DAMAGE, NewerFormatError."""
    return FACTS.validate_python(read_json(file, "look"))
