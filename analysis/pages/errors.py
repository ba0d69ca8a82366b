"""Errors and where they gather, in the words and tables of pages."""

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.pages.tables import ROWS, TOO_SMALL, Table, as_percent, percent, table_of, tells
from trainables.data.targets import Kind

SIDES = {"validation": "validation", "holdout": "test"}
LARGEST: dict[Kind, str] = {"classes": "the most confident errors", "tags": "the most confident errors", "number": "the largest errors"}
APART: dict[Kind, str] = {"classes": "divergence", "tags": "divergence", "number": "standard deviation"}  # of what members say
TITLE = "Where errors gather"
COMMON = ("images that have in common", "images", "groups")
HEAD = (*COMMON, "wrong", "error rate", "elsewhere", "difference (95 % CI)")
OF_NUMBERS = (*COMMON, "mean absolute error", "elsewhere", "difference (95 % CI)")


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

    @property
    def distinguishable(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def headline(kind: Kind, side: str, images: int, groups: int, rate: float) -> str:
    """How much is answered wrongly.

    Args:
        side: validation or holdout.
        rate: the share of images that are answered wrongly, or the mean absolute error of a number.
    """
    what = f"{images:,} {SIDES.get(side, side)} images of {groups:,} groups"
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
        kind: of the targets: errors of numbers have no share of 1.
    """
    if kind == "number":
        rows = [(*_common(one), f"{one.rate:.3g}", f"{one.elsewhere:.3g}", difference(one, kind)) for one in found if one.interval]
        return table_of(TITLE, OF_NUMBERS, rows, (1, 2, 3, 4, 5), most=most)
    rows = [
        (*_common(one), f"{one.errors:,.0f}", as_percent(one.rate), as_percent(one.elsewhere), difference(one, kind))
        for one in found
        if one.interval is not None and tells(one.interval)
    ]
    return table_of(TITLE, HEAD, rows, (1, 2, 3, 4, 5, 6), most=most)


def difference(one: Subgroup, kind: Kind) -> str:
    """How much more is wrong than elsewhere, with its interval."""
    if one.interval is None:
        return TOO_SMALL
    more, (low, high), form = one.rate - one.elsewhere, one.interval, "+.3g" if kind == "number" else "+.1%"
    return f"{more:{form}} ({low:{form}} to {high:{form}})"


def _common(one: Subgroup) -> tuple[str, str, str]:
    return one.name, f"{one.images:,}", f"{one.groups:,}"
