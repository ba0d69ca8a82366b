"""What a metric is: a value that knows its name, its direction and how to score, and where it can, from which sums over images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from trainables.data.targets import Kind

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Statistics = Callable[[np.ndarray, np.ndarray, int], "np.ndarray | csr_array"]  # truth, prediction, classes or tags -> (n, k)
Weighed = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # truth, prediction, weights (m, n) -> scores (m,)


TAGGED = 0.5  # from which probability on an image is said to have a tag


@dataclass(frozen=True)
class Summed:
    """How a score follows from sums over images: whoever has the sums of some groups of images needs the images no more.

    The score must not change when all sums are doubled: twice the same images are as good as once.
    """

    statistics: Statistics  # what each image adds; single precision where these are integers, which it holds up to 16 million
    score: Callable[[np.ndarray], np.ndarray]  # of sums (..., k), in double precision: (...)
    slope: Callable[[np.ndarray], np.ndarray]  # the derivative of the score by each sum (..., k): (..., k)


def _scored_elsewhere(truth: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of a metric whose scores come from elsewhere, so that only what is said of them counts."""
    raise TypeError("this metric has no formula")


@dataclass(frozen=True)
class Metric:
    """How good predictions are.

    Truth is, by the kind of target, true classes (n,), whether an image has each tag (n, tags), or numbers (n,). An answer is probabilities
    (n, classes) or (n, tags), or predicted numbers (n, 1).
    """

    name: str  # as in METRICS, scikit-learn's where it has one
    title: str  # the plain word of tables
    direction: Literal["maximize", "minimize"] = "maximize"
    formula: Summed | Weighed = _scored_elsewhere  # the second, which is slower, where the score is no function of sums
    takes: Literal["labels", "probabilities", "values"] = "labels"  # labels: which class is the most probable, or which tags there are
    target: Kind = "classes"
    bounds: tuple[float, float] = (0.0, 1.0)  # no score lies outside
    chance: Callable[[int], float] = lambda classes: 1 / classes  # about what an answer that knows nothing has, by the count of classes
    balanced: bool = False  # every class counts alike, however rare
    explained: str = ""  # in a sentence, for readers of the report
    unseen: str = ""  # what a class that no image has does to the score; empty: nothing

    @property
    def is_of_sums(self) -> bool:
        """Whether the score follows from sums over images."""
        return isinstance(self.formula, Summed)

    @property
    def summed(self) -> Summed:
        """The formula of a metric that is of sums. Raises: TypeError."""
        if not isinstance(self.formula, Summed):
            raise TypeError(f"{self.name} is no function of sums")
        return self.formula

    @property
    def sign(self) -> int:
        """What a score is multiplied by to be better where it is higher."""
        return 1 if self.direction == "maximize" else -1

    @property
    def capital(self) -> str:
        """The title at the beginning of a sentence."""
        return self.title[:1].upper() + self.title[1:]

    def prediction(self, probabilities: np.ndarray) -> np.ndarray:
        """What is scored of an answer (..., width): the most probable class (...), which tags are there (..., tags), or the answer."""
        if self.takes != "labels":
            return probabilities
        return probabilities >= TAGGED if self.target == "tags" else probabilities.argmax(axis=-1)

    def score(self, truth: np.ndarray, probabilities: np.ndarray) -> float:
        """The score of an answer (n, width)."""
        return self.of_prediction(truth, self.prediction(probabilities), probabilities.shape[1])

    def of_prediction(self, truth: np.ndarray, prediction: np.ndarray, classes: int) -> float:
        """The score of what the metric takes of an answer, which is `classes` (or tags) wide."""
        each = np.ones(len(truth))
        if isinstance(self.formula, Summed):
            return float(self.formula.score(each @ self.formula.statistics(truth, prediction, classes)))
        return float(self.formula(truth, prediction, each[None])[0])
