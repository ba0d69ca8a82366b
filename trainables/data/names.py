"""Names of files, targets, classes and groups: which of them survive being written and read, and how any of them is shown."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

_NO_TEXT = re.compile("[\ud800-\udfff]")  # bytes that are no UTF-8, as Python keeps them in names of files
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")  # control characters and line breaks, which tables and terminals take for their own


def no_text(names: Iterable[str]) -> list[str]:
    """Those of the names that no file can hold as text."""
    return [name for name in names if _NO_TEXT.search(name)]


def with_control_characters(names: Iterable[str]) -> list[str]:
    """Those of the names that break lines, or worse."""
    return [name for name in names if _CONTROL.search(name)]


def shown(name: str) -> str:
    """A name as a terminal can show it: what is no text in it, and control characters, are escaped."""
    return _CONTROL.sub(_escaped, _NO_TEXT.sub(_escaped, name))


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only in spaces, invisible characters or how accents are composed, each with those that look like it."""
    alike = defaultdict(list)
    for name in dict.fromkeys(names):
        alike[_plain(name)].append(name)
    return [tuple(same) for same in alike.values() if len(same) > 1]


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + rest


def _escaped(found: re.Match[str]) -> str:
    byte = ord(found[0]) - 0xDC00  # Python keeps a byte that is no UTF-8 as this and the byte
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else found[0].encode("unicode_escape").decode()


def _plain(name: str) -> str:
    if name.isascii():
        return " ".join(name.split())
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(visible.split())
