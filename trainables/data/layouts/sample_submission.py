"""Tables that say in which form answers are wanted: which rows, in which order, under which columns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.data.layouts.image_files import Finder
from trainables.data.rows import read_table
from trainables.data.targets import Scheme

NAME = re.compile(r"sample[-_ ]?submission", re.IGNORECASE)


@dataclass(frozen=True)
class SampleSubmission:
    """The form of an answer."""

    file: Path
    columns: tuple[str, ...]  # the image's, then those of the answer
    rows: tuple[tuple[str, ...], ...]  # fields as they stand there
    paths: tuple[str | None, ...]  # of each row's image, below the folder of images; None where there is none
    nameless: tuple[str, ...] = ()  # columns without a name, by their place

    @property
    def names(self) -> tuple[str, ...]:
        """What the rows call their images."""
        return tuple(row[0] for row in self.rows)

    def by_name(self, scheme: Scheme) -> bool:
        """Whether classes are wanted by their names: not where all that stands there are numbers of classes."""
        values, numbers = {row[1] for row in self.rows}, set(map(str, range(scheme.classes)))
        return bool(values - numbers) or values <= set(scheme.class_names())


def samples_in(folder: Path) -> list[Path]:
    """The tables in a folder that call themselves a sample submission."""
    return [entry for entry in sorted(folder.iterdir()) if NAME.search(entry.stem) and entry.suffix.lower() == ".csv"]


def read_sample(file: Path, root: Path) -> SampleSubmission:
    """The form that a table has, for images below a folder. Raises: DataError where it is no table."""
    table = read_table(file)
    rows = tuple(tuple(fields.values()) for _, fields in table.rows)
    return SampleSubmission(file, table.columns, rows, _find([row[0] for row in rows], root), table.nameless)


def _find(names: Sequence[str], root: Path) -> tuple[str | None, ...]:
    finder = Finder(root)
    base = finder.choose_folder(names, "test")
    found = [finder.find(base, name) for name in names]
    elsewhere = finder.anywhere([name for name, path in zip(names, found, strict=True) if path is None])
    return tuple(path or elsewhere.get(name) for name, path in zip(names, found, strict=True))
