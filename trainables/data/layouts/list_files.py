"""Lists of images without a header: a path and a label, or several, in each line."""

import os
from pathlib import Path

from trainables.data.layouts.image_files import SUFFIXES, Finder
from trainables.data.layouts.named_images import Row
from trainables.data.rows import read_text

IMAGE, LABEL = "image", "label"


def is_list(file: Path, finder: Finder) -> bool:
    """Whether the first line names an image and not columns."""
    entries = list_entries(file)
    if not entries:
        return False
    name = entries[0][1][IMAGE]
    by_suffix = os.path.splitext(name)[1].lower().startswith(SUFFIXES)
    return by_suffix or finder.find(finder.choose_folder([name], ""), name) is not None or bool(finder.anywhere([name]))


def list_entries(file: Path) -> list[Row]:
    """The lines as rows of the columns image and label, or image, column 2, column 3, ...; empty ones and # comments are skipped.

    Raises: DataError.
    """
    text, _ = read_text(file)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    separator = next((one for one in ("\t", ",", ";") if all(line.count(one) == lines[0][1].count(one) > 0 for _, line in lines)), None)
    fields = [line.split(separator) for _, line in lines]
    widths = {len(row) for row in fields}
    if widths and widths != {2} and (len(widths) > 1 or separator is None and _is_one_name(fields[0])):
        # Names with spaces in them: the label is the last word.
        fields = [line.rsplit(separator, 1) for _, line in lines]
    widest = max(map(len, fields), default=0)
    names = [IMAGE, LABEL] if widest == 2 else [IMAGE, *(f"column {place}" for place in range(2, widest + 1))]
    rows = (dict(zip(names, [*map(str.strip, row), *[""] * widest], strict=False)) for row in fields)
    return [(f"{file}:{number}", row) for (number, _), row in zip(lines, rows, strict=True)]


def _is_one_name(words: list[str]) -> bool:
    """Whether all words but the last are one name with spaces: the suffix stands in a later one than the first."""
    return not words[0].lower().endswith(SUFFIXES) and words[-2].lower().endswith(SUFFIXES)
