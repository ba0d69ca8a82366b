"""Errors and where they gather, in the words and tables of pages."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from analysis.pages.tables import ROWS, TOO_SMALL, Table, is_informative, percent, table_of
from trainables.data.targets import Kind

PART_WORDS = {"validation": "validation", "holdout": "test"}
LARGEST: dict[Kind, str] = {"classes": "the most confident errors", "tags": "the most confident errors", "number": "the largest errors"}
APART: dict[Kind, str] = {"classes": "divergence", "tags": "divergence", "number": "standard deviation"}  # of what members say
COLUMNS = ("group", "photos", "people", "errors", "rate", "elsewhere", "low", "high")  # of groups.csv, that a subgroup takes
TITLE = "Where errors gather"
COMMON = ("images", "groups")
NUMBERS: dict[Kind, tuple[str, ...]] = {  # what `subgroup_cells` has of a subgroup
    "classes": (*COMMON, "wrong", "error rate", "elsewhere", "difference (95 % CI)"),
    "tags": (*COMMON, "wrong", "error rate", "elsewhere", "difference (95 % CI)"),
    "number": (*COMMON, "mean absolute error", "elsewhere", "difference (95 % CI)"),
}


@dataclass(frozen=True)
class Subgroup:
    """How often images that have something in common are answered wrongly, or how far their numbers are off, beside all others."""

    name: str
    images: int
    groups: int
    errors: float  # how many images are answered wrongly; of numbers the sum of what they are off
    rate: float  # errors an image
    elsewhere: float  # the same of the other images
    interval: tuple[float, float] | None  # 95 %, of the difference of the two, over groups; None of too few groups

    @classmethod
    def of(cls, row: Mapping[Hashable, Any]) -> Self:
        """That of a row of groups.csv."""
        images, groups, errors, rate, elsewhere, low, high = (row[name] for name in COLUMNS[1:])
        interval = None if low != low or high != high else (float(low), float(high))
        return cls(str(row["group"]), images, groups, errors, rate, elsewhere, interval)

    @property
    def distinguishable(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def headline(kind: Kind, part: str, images: int, groups: int, rate: float) -> str:
    """How much is answered wrongly.

    Args:
        part: validation or holdout.
        rate: the share of images that are answered wrongly, or the mean absolute error of a number.
    """
    what = f"{images:,} {PART_WORDS.get(part, part)} images of {groups:,} groups"
    if kind == "number":
        return f"The mean absolute error on {what} is {rate:.3g}."
    wrong = "have some tag wrong" if kind == "tags" else "are answered wrongly"
    return f"{round(rate * images):,} of {what} {wrong} ({rate:.1%})."


def size_words(kind: Kind, size: float) -> str:
    """The size of an error: the confidence in what is wrong, or how far a number is off."""
    return f"off by {size:.3g}" if kind == "number" else f"confidence {percent(size)}"


def votes_words(kind: Kind, name: str, votes: int) -> str:
    """How many members answer so; of numbers, which are never alike, only what they answer."""
    return name if kind == "number" else f"{votes} x {name}"


def gathering(found: Iterable[Subgroup], kind: Kind = "classes", most: int = ROWS) -> Table:
    """Those whose interval says something, in the order given; there may be none.

    Args:
        kind: of the targets: errors of numbers have no share of 1, so that every interval of theirs says something.
    """
    informative = [one for one in found if one.interval is not None and (kind == "number" or is_informative(one.interval))]
    rows = [(one.name, *subgroup_cells(one, kind)) for one in informative]
    return table_of(TITLE, ("images that have in common", *NUMBERS[kind]), rows, tuple(range(1, 1 + len(NUMBERS[kind]))), most=most)


def subgroup_cells(one: Subgroup, kind: Kind) -> tuple[str, ...]:
    """What a table has of a subgroup, under NUMBERS of the kind."""
    form = ".3g" if kind == "number" else ".1%"
    count = () if kind == "number" else (f"{one.errors:,.0f}",)
    more = TOO_SMALL
    if one.interval is not None:
        low, high = one.interval
        more = f"{one.rate - one.elsewhere:+{form}} ({low:+{form}} to {high:+{form}})"
    return f"{one.images:,}", f"{one.groups:,}", *count, f"{one.rate:{form}}", f"{one.elsewhere:{form}}", more
