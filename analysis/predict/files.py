"""The table of answers that the command writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.novelty import UNLIKE
from analysis.evaluation.scoring import tag_words
from analysis.members.mc_dropout import SPREAD
from trainables.data.targets import Kind, Scheme
from trainables.record import RunError
from trainables.storage import write_atomically

if TYPE_CHECKING:
    import pandas as pd


def answer_table(scheme: Scheme, names: Sequence[str], rows: np.ndarray, scores: np.ndarray, problems: dict[str, str]) -> "pd.DataFrame":
    """One row an image; cells of images that cannot be used are empty but for `problem`.

    Args:
        rows: (answered,) positions of those that are answered.
        scores: the answer (answered, columns).
    """
    import pandas as pd

    columns: dict[str, Sequence | np.ndarray] = {}

    def ours(column: str) -> str:
        # A target may be called as a column of ours is; ours gives way.
        return column if column not in (*scheme.names, *columns) else ours(f"{column} of the image")

    if scheme.kind == "classes":
        classes = scores.argmax(axis=1)
        for target, values in zip(scheme.targets, scheme.split(classes).T, strict=True):
            columns[target.name] = np.array(target.values, dtype=object)[values]
            probability = scheme.marginal((target.name,), scores)[np.arange(len(scores)), values]
            columns[ours(f"{target.name} probability")] = probability
        columns[ours("joint class")] = pd.array(classes, dtype="Int64")
    else:
        columns[scheme.names[0]] = tag_words(scores, scheme) if scheme.kind == "tags" else scores[:, 0]
    if scheme.kind != "number":
        columns |= {ours(f"P({name})"): scores[:, number] for number, name in enumerate(scheme.class_names())}
    image, problem = ours("image"), ours("problem")
    table = pd.DataFrame(columns, index=rows).reindex(range(len(names)))
    # As objects: text of pandas holds no names that are not of its encoding.
    table.insert(0, image, pd.Series(names, dtype=object))
    table[problem] = [problems.get(name, "") for name in names]
    return table


def add_flags(table: "pd.DataFrame", rows: np.ndarray, flags: np.ndarray, distances: np.ndarray) -> None:
    """Say in the table which of the images that are answered, whose positions are `rows` (n,), are unlike anything learned (n,), and how
    far away they are (n,)."""
    _insert(table, rows, {UNLIKE: np.where(flags, "yes", "no").astype(object), "distance from what was learned": distances})


def add_spread(table: "pd.DataFrame", rows: np.ndarray, apart: np.ndarray, kind: Kind) -> None:
    """Say in the table how far the passes of Monte Carlo dropout are from one another (n,) for the images at the positions `rows` (n,)."""
    _insert(table, rows, {SPREAD[kind]: apart})


def _insert(table: "pd.DataFrame", rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
    import pandas as pd

    for name, values in columns.items():
        # A target may be called so; its column stays.
        name = name if name not in table.columns else f"{name} (image)"
        table.insert(len(table.columns) - 1, name, pd.Series(values, index=rows).reindex(range(len(table))))


def write_answers(file: Path, table: "pd.DataFrame") -> None:
    """Write the table, completely or not at all, with every digit. Raises: RunError."""
    try:
        # Names of files need not be text of any encoding; their bytes are kept.
        write_atomically(file, table.to_csv(index=False, lineterminator="\n").encode(errors="surrogateescape"))
    except OSError as error:
        raise RunError(f"--out {file} cannot be written ({error.strerror or error}); write elsewhere, or make room") from None
