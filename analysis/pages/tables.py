"""Tables of a page and the numbers in them, for people: three digits, and no interval that says nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

ROWS = 40  # of a table
TOO_SMALL = "n too small to say"
WIDEST = 0.5  # of the range of what is told: a wider interval says nothing


@dataclass(frozen=True)
class Table:
    """Cells as texts; columns of numbers are set to the right."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()  # columns
    rest: int = 0  # rows that are not shown
    folded: bool = False  # shown when asked for
    kind: str = "table"


def table_of(
    caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...], most: int = ROWS, folded: bool = False
) -> Table:
    """The first rows, without columns in which none of them has anything."""
    shown = [tuple(row) for row in rows[:most]]
    full = [place for place in range(len(head)) if any(row[place] for row in shown)]
    return Table(
        caption,
        tuple(head[place] for place in full),
        tuple(tuple(row[place] for place in full) for row in shown),
        tuple(number for number, place in enumerate(full) if place in numbers),
        max(0, len(rows) - most),
        folded,
    )


def as_number(value: float | None) -> str:
    """A score; nothing where there is none."""
    return "" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of scores."""
    return f"{value:+z.3f}".replace("+0.000", "0.000")


def is_informative(interval: tuple[float, float], bounds: tuple[float, float] = (0.0, 1.0)) -> bool:
    """Whether an interval narrows down what can be between the bounds; where these have no end every interval does."""
    return interval[1] - interval[0] <= WIDEST * (bounds[1] - bounds[0])


def number_range(interval: tuple[float, float] | None, bounds: tuple[float, float] = (0.0, 1.0)) -> str:
    """An interval of scores that lie between the bounds."""
    if interval is None:
        return ""
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if is_informative(interval, bounds) else TOO_SMALL


def as_percent(value: float | None) -> str:
    """A share of 1; nothing where there is none."""
    return "" if value is None else f"{value:.1%}"


def percent_range(interval: Sequence[float] | None) -> str:
    """An interval of shares."""
    if interval is None:
        return ""
    return f"{interval[0]:.1%} to {interval[1]:.1%}" if is_informative((interval[0], interval[1])) else TOO_SMALL


def percent(probability: float) -> str:
    """A probability in words that do not claim more than an estimate can."""
    return "over 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"
