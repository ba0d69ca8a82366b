"""What tables, pictures and numbers look like on the page."""

import base64
from collections.abc import Sequence

import pandas as pd

from analysis.evaluation.search.reading import Search
from analysis.report.answer import Frame, Sheet, cell
from analysis.report.parts import Photo, Table, Words

ROWS = 40  # of a table


def no_space(search: Search) -> Words:
    """Why nothing can be said of what varied."""
    why = (
        "it is a refit, whose configurations another run drew"
        if search.card.refit_of
        else "space.yaml, which says what varied, is not there"
    )
    return Words(f"Nothing varied in {search.name}, or that is not known: {why}.", "missing")


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


def frame_table(frame: Frame, most: int, folded: bool = False) -> Table:
    """The first rows of another command's table."""
    table = frame.table
    rows = [tuple(cell(value) for value in row) for row in table.head(most).itertuples(index=False, name=None)]
    numbers = tuple(place for place, name in enumerate(table.columns) if pd.api.types.is_numeric_dtype(table.iloc[:, place]))
    return Table(frame.title, tuple(map(str, table.columns)), tuple(rows), numbers, max(0, len(table) - most), folded)


def photo_of(sheet: Sheet, caption: str) -> Photo:
    """Another command's picture, within the page."""
    return Photo(sheet.name, f"data:image/jpeg;base64,{base64.b64encode(sheet.content).decode()}", caption, sheet.size)


def capital(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]


def as_number(value: float | None) -> str:
    """A score; nothing where there is none."""
    return "" if value is None else f"{value:.3f}"


def number_range(interval: tuple[float, float] | None) -> str:
    """An interval of scores."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def as_percent(value: float | None) -> str:
    """A share of 1; nothing where there is none."""
    return "" if value is None else f"{value:.1%}"


def percent_range(interval: Sequence[float] | None) -> str:
    """An interval of shares."""
    return "" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"
