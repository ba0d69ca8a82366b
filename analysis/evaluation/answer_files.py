"""Finished files of answers: submissions (an image and its class) or probabilities (an image and one column a class)."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from trainables.data.names import some
from trainables.data.targets import TOLERANCE
from trainables.registry import Mistake


def read_answers(file: Path) -> tuple[pd.DataFrame | None, list[str]]:
    """A file's table, its first column as text, and everything that is wrong with it."""
    table, wrong = read_texts(file)
    if table is None:
        return None, wrong
    if len(table.columns) < 2 or not len(table):
        return None, ["it holds no images with answers: the first column names the image, one more its class, or one a class"]
    image = table.columns[0]
    # The table of `predict` has a column for each class, and others beside them.
    if shares := [column for column in table.columns[1:] if re.fullmatch(r"P\(.*\)", column)]:
        table = table[[image, *shares]]
    if len(table.columns) > 2:
        numbers = table.iloc[:, 1:].apply(pd.to_numeric, errors="coerce")
        values = numbers.to_numpy(dtype=float)
        right = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= TOLERANCE)
        if not right.all():
            names = table.loc[~right, image].tolist()
            wrong.append(f"{len(names)} images have no probabilities, each >= 0 and 1 in all: {some(names)}")
        table = pd.concat([table[[image]], numbers], axis=1)
    elif empty := table.loc[table.iloc[:, 1].str.strip() == "", image].tolist():
        wrong.append(f"{len(empty)} images have no class: {some(empty)}")
    return table, wrong


def read_texts(file: Path) -> tuple[pd.DataFrame | None, list[str]]:
    """A file's table as text, its first column naming images, and what is wrong with that."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        return None, [f"cannot be read as a table ({type(error).__name__}: {error})"]
    twice = table.loc[table.iloc[:, 0].duplicated()].iloc[:, 0].tolist()
    return table, [f"{len(twice)} images are in it more than once: {some(twice)}"] if twice else []


def wrong_out(out: Path, files: Iterable[Path], which: str) -> list[Mistake]:
    """What is wrong with the file to write, beside files that are read; `which` says what these do."""
    if out.resolve() in [file.resolve() for file in files]:
        return [Mistake("--out", f"{out} is one of the files that {which}; write elsewhere")]
    if out.is_dir() or not out.absolute().parent.is_dir():
        return [Mistake("--out", f"{out} cannot be written: name a file in a folder that exists")]
    return []


def unlike(tables: dict[Path, pd.DataFrame]) -> list[Mistake]:
    """How files differ from the first one in columns and images; none may be given."""
    if not tables:
        return []
    (one, first), *rest = tables.items()
    mistakes = []
    for file, table in rest:
        if set(table.columns) != set(first.columns) or table.columns[0] != first.columns[0]:
            columns = [", ".join(map(str, shown.columns[:4])) for shown in (table, first)]
            mistakes.append(Mistake(str(file), f"its columns ({columns[0]}) are not those of {one} ({columns[1]})"))
        ours, others = set(table.iloc[:, 0]), set(first.iloc[:, 0])
        for words, names in (("has {} images that {} has not", ours - others), ("lacks {} images of {}", others - ours)):
            if names:
                mistakes.append(Mistake(str(file), f"{words.format(len(names), one)}: {some(sorted(names))}"))
    return mistakes
