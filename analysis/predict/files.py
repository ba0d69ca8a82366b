"""The table of answers that the command writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.data.targets import Scheme
from trainables.record import RunError
from trainables.storage import write_whole

if TYPE_CHECKING:
    import pandas as pd


def answer_table(scheme: Scheme, names: Sequence[str], rows: np.ndarray, scores: np.ndarray, problems: dict[str, str]) -> "pd.DataFrame":
    """One row an image; cells of images that cannot be used are empty but for `problem`.

    Args:
        rows: (answered,) positions of those that are answered.
        scores: (answered, classes).
    """
    import pandas as pd

    classes = scores.argmax(axis=1)
    columns: dict[str, Sequence | np.ndarray] = {}

    def ours(column: str) -> str:
        # A target may be called as a column of ours is; ours gives way.
        return column if column not in (*scheme.names, *columns) else ours(f"{column} of the image")

    for attribute, values in zip(scheme.targets, scheme.split(classes).T, strict=True):
        columns[attribute.name] = np.array(attribute.values, dtype=object)[values]
        probability = scheme.marginal((attribute.name,), scores)[np.arange(len(scores)), values]
        columns[ours(f"{attribute.name} probability")] = probability
    columns[ours("joint class")] = pd.array(classes, dtype="Int64")
    columns |= {ours(f"P({name})"): scores[:, number] for number, name in enumerate(scheme.class_names())}
    image, problem = ours("image"), ours("problem")
    table = pd.DataFrame(columns, index=rows).reindex(range(len(names)))
    # As objects: text of pandas holds no names that are not of its encoding.
    table.insert(0, image, pd.Series(names, dtype=object))
    table[problem] = [problems.get(name, "") for name in names]
    return table


def write_answers(file: Path, table: "pd.DataFrame") -> None:
    """Write the table, whole or not at all, with every digit. Raises: RunError."""
    try:
        # Names of files need not be text of any encoding; their bytes are kept.
        write_whole(file, table.to_csv(index=False, lineterminator="\n").encode(errors="surrogateescape"))
    except OSError as error:
        raise RunError(f"--out {file} cannot be written ({error.strerror or error}); write elsewhere, or make room") from None
