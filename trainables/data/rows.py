"""CSV tables that people write: read whole, with everything wrong named at once by its line."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainables.data.images import DataError

MOST = 20  # mistakes shown of one table

Rows = list[tuple[int, dict[str, str]]]  # line as an editor shows it, and the fields by column


@dataclass(frozen=True)
class Table:
    """What a CSV file holds."""

    columns: tuple[str, ...]  # that have a name
    rows: Rows
    nameless: tuple[str, ...]  # columns without a name, by their place, such as pandas' row numbers; nothing reads them


def read_rows(file: Path, columns: Sequence[str]) -> Rows:
    """The rows of `read_table` alone. Raises: DataError."""
    return read_table(file, columns).rows


def read_table(file: Path, columns: Sequence[str]) -> Table:
    """The rows below the header; empty lines are passed over, and so are columns without a name.

    Args:
        columns: that the table must have; it may have others too.
    Raises: DataError naming everything that keeps the file from being such a table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}).") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a CSV table ({error}).") from None
    named = [place for place, name in enumerate(header) if not _is_nameless(name)]
    known = [header[place] for place in named]
    mistakes = [f"{file}: column {name!r} stands twice; keep one." for name in dict.fromkeys(known) if known.count(name) > 1]
    if missing := [name for name in columns if name not in header]:
        has = f"has {', '.join(header)}" if header else "the file is empty"
        mistakes.append(f"{file}: column {', '.join(missing)} is missing; it needs {', '.join(columns)} and {has}.")
    mistakes += [
        f"{file}:{line}: has {len(fields)} fields, the header has {len(header)}; put a field with a comma in quotation marks."
        for line, fields in lines
        if len(fields) != len(header)
    ]
    refuse(file, mistakes)
    nameless = tuple(f"column {place}" for place, name in enumerate(header, 1) if _is_nameless(name))
    return Table(tuple(known), [(line, {header[place]: fields[place] for place in named}) for line, fields in lines], nameless)


def refuse(file: Path, mistakes: Sequence[str]) -> None:
    """Raises: DataError with the mistakes, one a line, where there are some; of very many only the first."""
    if mistakes:
        rest = [f"{file}: and {len(mistakes) - MOST} more."] if len(mistakes) > MOST else []
        raise DataError("\n".join([*mistakes[:MOST], *rest]))


def is_inside(path: str) -> bool:
    """Whether this is the plain spelling of a path below a folder; another one would make two images or groups of one."""
    plain = PurePosixPath(path)
    return bool(plain.parts) and ".." not in plain.parts and not plain.is_absolute() and str(plain) == path


def read_number(text: str) -> float | None:
    """The finite number in the text, or None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _is_nameless(column: str) -> bool:
    # What pandas wrote without a name it reads, and writes again, as this.
    return not column.strip() or re.fullmatch(r"Unnamed: [0-9]+", column) is not None
