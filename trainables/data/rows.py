"""Tables that people and programs write: read completely, however they are encoded and separated, with every mistake named by its line."""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainables.data.images import DataError, LeftOut

MOST = 20  # mistakes shown of one table
LOOKED_AT = 50  # rows that tell which separator is meant
SEPARATORS = (",", ";", "\t", "|")
MARKS = {  # what a file begins with that says how it is encoded
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

Rows = list[tuple[int, dict[str, str]]]  # line as an editor shows it, and the fields by column


@dataclass(frozen=True)
class Table:
    """What a table holds."""

    columns: tuple[str, ...]  # that have a name
    rows: Rows
    nameless: tuple[str, ...]  # columns without a name, by their place, such as pandas' row numbers; nothing reads them
    notes: tuple[LeftOut, ...] = ()  # how it was read, where that is not plain


def read_rows(file: Path, columns: Sequence[str]) -> Rows:
    """The rows of `read_table` alone. Raises: DataError."""
    return read_table(file, columns).rows


def read_table(file: Path, columns: Sequence[str] = ()) -> Table:
    """The rows below the header; empty rows and columns without a name are skipped.

    Args:
        columns: that the table must have; it may have others too.
    Raises: DataError naming everything that keeps the file from being such a table.
    """
    text, encoding = read_text(file)
    try:
        (header_line, header), *lines = split_fields(text) or [(1, [])]
    except csv.Error as error:
        raise DataError(f"{file}: not a CSV table ({error}).") from None
    header = [plain_name(name) for name in header]
    named = [place for place, name in enumerate(header) if not _is_nameless(name)]
    known = [header[place] for place in named]
    mistakes = [f"{file}: column {name!r} is a duplicate; keep one." for name in dict.fromkeys(known) if known.count(name) > 1]
    if missing := [name for name in columns if name not in header]:
        has = f"has {', '.join(known)}" if known else "the file is empty"
        mistakes.append(f"{file}: column {', '.join(missing)} is missing; it needs {', '.join(columns)} and {has}.")
    blank = [line for line, fields in lines if not any(map(str.strip, fields))]
    lines = [(line, fields) for line, fields in lines if any(map(str.strip, fields))]
    mistakes += [
        f"{file}:{line}: has {len(fields)} fields, the header has {len(header)}; put a field with a separator in quotation marks."
        for line, fields in lines
        if len(fields) != len(header)
    ]
    refuse(file, mistakes)
    notes = [LeftOut(f"table read as {encoding}; if its names are wrong, save it as CSV UTF-8", (file.name,))] if encoding else []
    notes += [LeftOut("empty rows, ignored", tuple(f"line {line}" for line in blank))] if blank else []
    nameless = tuple(f"column {place}" for place, name in enumerate(header, 1) if _is_nameless(name))
    rows = [(line, {header[place]: fields[place] for place in named}) for line, fields in lines]
    return Table(tuple(known), rows, nameless, tuple(notes))


def read_text(file: Path) -> tuple[str, str]:
    """The text of a file, and what it was taken to be encoded as where nothing in it says so: empty for UTF-8 and for what has a mark.

    Raises: DataError.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}).") from None
    marked = [(encoding, "") for mark, encoding in MARKS.items() if content.startswith(mark)][:1]
    zeros = content[:200].count(0) > len(content[:200]) // 4
    wide = [("utf-16-le" if content[1:2] == b"\0" else "utf-16-be", "UTF-16")] if zeros else []
    for encoding, assumed in marked or (*wide, ("utf-8", ""), ("cp1252", "Windows-1252")):
        try:
            return content.decode(encoding), assumed
        except UnicodeDecodeError:
            continue
    what = f"it begins as {marked[0][0]}, but is not" if marked else "neither UTF-8, UTF-16 nor Windows-1252"
    raise DataError(f"{file}: not a CSV table ({what}). Save it as CSV UTF-8.")


def split_fields(text: str) -> list[tuple[int, list[str]]]:
    """The rows of a table with the lines they end in, separated by what gives every row the fields of the first one.

    Raises: csv.Error.
    """
    declared = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to say it
    separators = [declared[1]] if declared else SEPARATORS
    body = text[declared.end() :] if declared else text
    found = {separator: _parsed(body, separator, LOOKED_AT) for separator in separators}

    def fitness(separator: str) -> tuple[int, bool]:
        widths = {len(fields) for _, fields in found[separator]}
        return (len(found[separator][0][1]) if found[separator] else 0) * (len(widths) == 1), len(widths) == 1

    widest = max(separators, key=lambda separator: len(found[separator][0][1]) if found[separator] else 0)
    best = max(separators, key=fitness)
    chosen = best if fitness(best)[0] > 1 else widest
    return [(line + bool(declared), fields) for line, fields in _parsed(body, chosen, None)]


def plain_name(name: str) -> str:
    """A name as it is meant: composed accents, and plain spaces, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", name).split())


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


def _parsed(text: str, separator: str, most: int | None) -> list[tuple[int, list[str]]]:
    """So many rows, or all of them. Raises: csv.Error, where rows are asked for without an end."""
    found: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if fields and len(found) == most:
                break
            if fields:
                found.append((reader.line_num, fields))
    except csv.Error:
        if most is None:
            raise
    return found


def _is_nameless(column: str) -> bool:
    # What pandas wrote without a name it reads, and writes again, as this.
    return not column.strip() or re.fullmatch(r"Unnamed: [0-9]+", column) is not None
