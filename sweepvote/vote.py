"""The answer of a run, from Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from trainables.record import read_json
from trainables.storage import Folder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Vote:
    """An ensemble that has been scored on the hold-out; it lies in its folder, which is all that predicting takes beside the models."""

    folder: Folder

    def __repr__(self) -> str:
        low, high = self.interval
        return f"Vote({str(self.folder)!r}: {self.answer}, {self.metric} {self.score:.3f}, 95 % CI {low:.3f} to {high:.3f})"

    @property
    def scores(self) -> dict[str, Any]:
        """All that is known of it: scores.json."""
        from analysis.ensemble.files import SCORES

        return read_json(self.folder / SCORES, "scores")

    @property
    def members(self) -> "pd.DataFrame":
        """One row a member: its trials, weight in the vote, score on validation and on the hold-out."""
        import pandas as pd

        rows = [
            {
                "member": one["name"],
                "trials": tuple(f"{trial['run']}/{trial['number']}" for trial in one["trials"]),
                "weight": one["weight"],
                "validation score": one["valid_score"],
                "hold-out score": one["holdout_score"],
            }
            for one in self.scores["members"]
        ]
        return pd.DataFrame(rows).set_index("member")

    @property
    def metric(self) -> str:
        return self.scores["metric"]

    @property
    def answer(self) -> str:
        """What answers: a kind of vote, or `best single` where no vote is better."""
        return self.scores["answer"]

    @property
    def score(self) -> float:
        """On the hold-out, by the run's metric."""
        return self._answers[self.answer]["score"]

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by the bootstrap over groups of the hold-out."""
        low, high = self._answers[self.answer]["interval"]
        return low, high

    @property
    def against_best_single(self) -> dict[str, Any]:
        """What it gains on the hold-out over the best single model: gain, its interval, whether that is significant."""
        return _gain(self._answers[self.answer])

    @property
    def against_baseline(self) -> dict[str, Any] | None:
        """What it gains over what one would have trained without searching; None where no baseline has a score."""
        found = self.scores["baseline"]
        return found and {"trial": found["trial"], **_gain(found)}

    def predict(
        self, images: str | PathLike | Sequence[str | PathLike], *, device: str = "auto", batch: int | None = None
    ) -> "pd.DataFrame":
        """Answer for images without labels: one row each, in their order.

        Columns: the image, its most probable class (of each target, with its probability), the probability of every class, and what is
        wrong with an image that cannot be used; tags and numbers likewise.

        Args:
            images: a file, a folder with all its folders, or a list of files.
            device: auto, cpu, cuda or mps.
            batch: images that go through a model at a time.
        Raises: UserError.
        """
        from analysis.predict.job import answered, prepare

        listed = str(images) if isinstance(images, (str, PathLike)) else [str(image) for image in images]
        return answered(prepare(self.folder, listed, None, device, batch)).table

    @property
    def _answers(self) -> dict[str, Any]:
        return self.scores["answers"]


def _gain(found: dict[str, Any]) -> dict[str, Any]:
    return {"gain": found["gain"], "interval": tuple(found["gain_interval"]), "significant": found["distinguishable"], "p": found["p"]}
