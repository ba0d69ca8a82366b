"""Where errors gather, as a page shows it."""

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.pages.tables import ROWS, Table, as_percent, table_of, tells

TITLE = "Where errors gather"
HEAD = ("images that have in common", "images", "groups", "wrong", "error rate", "elsewhere", "difference (95 % CI)")


@dataclass(frozen=True)
class Gathering:
    """How often images that have something in common are answered wrongly, beside all others."""

    name: str
    images: int
    groups: int
    errors: int
    rate: float  # errors an image
    elsewhere: float
    interval: tuple[float, float] | None  # 95 %, of the difference of the two rates


def gathering(found: Iterable[Gathering], most: int = ROWS) -> Table:
    """Those whose interval says something, in the order given; there may be none."""
    rows = [
        (
            one.name,
            f"{one.images:,}",
            f"{one.groups:,}",
            f"{one.errors:,}",
            as_percent(one.rate),
            as_percent(one.elsewhere),
            f"{one.rate - one.elsewhere:+.1%} ({one.interval[0]:+.1%} to {one.interval[1]:+.1%})",
        )
        for one in found
        if one.interval is not None and tells(one.interval)
    ]
    return table_of(TITLE, HEAD, rows, (1, 2, 3, 4, 5, 6), most=most)
