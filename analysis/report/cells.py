"""What is said of a search, and how another command's table is shown on the page."""

import pandas as pd

from analysis.evaluation.search.reading import Search
from analysis.pages.parts import Words
from analysis.pages.tables import Table
from analysis.report.answer import Frame, cell


def no_space(search: Search) -> Words:
    """Why nothing can be said of what varied."""
    why = (
        "it is a refit, whose configurations another run drew"
        if search.card.refit_of
        else "space.yaml, which says what varied, is not there"
    )
    return Words(f"Nothing varied in {search.name}, or that is not known: {why}.", "missing")


def frame_table(frame: Frame, most: int, folded: bool = False) -> Table:
    """The first rows of another command's table."""
    table = frame.table
    rows = [tuple(cell(value) for value in row) for row in table.head(most).itertuples(index=False, name=None)]
    numbers = tuple(place for place, name in enumerate(table.columns) if pd.api.types.is_numeric_dtype(table.iloc[:, place]))
    return Table(frame.title, tuple(map(str, table.columns)), tuple(rows), numbers, max(0, len(table) - most), folded)


def capital(text: str) -> str:
    """The text as a sentence begins."""
    return text[:1].upper() + text[1:]
