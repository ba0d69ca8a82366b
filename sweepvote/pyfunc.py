"""An exported ensemble as MLflow loads it: `mlflow.pyfunc.load_model` finds this module by its name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvote.vote import Vote
from trainables.record import RunError

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "image"


class Answering:
    """Answers as `Vote.predict` does."""

    def __init__(self, vote: Vote):
        self.vote = vote

    def predict(self, images: "pd.DataFrame | Sequence[str]", params: Any = None) -> "pd.DataFrame":
        """One row an image.

        Args:
            images: files of images: a list, or a table with a column `image`, or with one column.
        Raises: UserError for files that are not there.
        """
        return self.vote.predict([str(image) for image in _listed(images)])


def _listed(images: Any) -> Iterable[Any]:
    if not hasattr(images, "columns"):
        return images
    if COLUMN in images:
        return images[COLUMN]
    if len(images.columns) == 1:
        return images.iloc[:, 0]
    raise RunError(f"the table has the columns {', '.join(map(str, images.columns))}; name that of the files {COLUMN}")


def _load_pyfunc(path: str) -> Answering:
    return Answering(Vote(Path(path) / "answer" / "ensemble"))
