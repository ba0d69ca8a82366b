"""What the page needs of what answers, be it PyTorch or ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from analysis.evaluation.novelty import Novelty
from analysis.evaluation.worth import Worth
from analysis.members.heatmaps import Maps, Place, Question
from trainables.data.targets import Scheme
from trainables.data.views import View


@dataclass(frozen=True, eq=False)
class Scored:
    """What is predicted of some images."""

    scores: np.ndarray  # (n, columns)
    distances: np.ndarray | None  # (n,) of `Novelty`; None where nothing is known


@dataclass(frozen=True)
class Facts:
    """What there is to know of what answers."""

    worth: Worth
    trials: int
    models: int  # networks that an image goes through
    transforms: list[str]
    heat_maps: bool  # whether it can be told where they look
    device: str
    versions: dict[str, str]


class Answers(Protocol):
    """What answers, for one thread at a time."""

    @property
    def scheme(self) -> Scheme: ...

    @property
    def views(self) -> Sequence[View]: ...

    @property
    def novelty(self) -> Novelty | None: ...

    def predict(self, images: Mapping[View, np.ndarray], names: Sequence[str]) -> Scored:
        """What is predicted of images (n, height, width, 3) uint8, one batch for each view. Raises: RunError where one finds no room."""
        ...

    def heat_maps(
        self, questions: Sequence[Question], images: Mapping[View, np.ndarray], places: Mapping[str, Place], side: int
    ) -> Maps | None:
        """Where models look: what raises the values that are asked about, as of `analysis.members.heatmaps`; None where it cannot be told.

        Args:
            images: as in `predict`, in the order of `places`.
        """
        ...

    def facts(self) -> Facts:
        """What there is to know of it."""
        ...
