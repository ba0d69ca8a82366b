"""Ensembles: how the probabilities of several members become one answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import PlainSerializer, PlainValidator, TypeAdapter
from pydantic_core import PydanticCustomError

from analysis.votes.arrays import Array
from analysis.votes.greedy import greedy, greedy_few
from analysis.votes.stackers import Forest, Machines, Neighbours, stack_forest, stack_knn, stack_svm
from analysis.votes.stacking import Logistic, stack
from analysis.votes.voting import Mean, Ranks, Votes, best, check, hard, rank, soft, weighted
from trainables.data.targets import KINDS, Kind
from trainables.metrics import Metric
from trainables.registry import Registry


class Fitted(Protocol):
    """A fitted vote: a frozen dataclass of plain values alone, so that a file of it is data.

    It is called with what members answer (members, images, columns), an array of NumPy or a tensor, and returns such an answer (images,
    columns), of Classes scores whose rows sum to 1 and whose highest decides. An image's answer depends on no other image.
    """

    @property
    def kind(self) -> str: ...  # in FITTED

    def __call__(self, probabilities: Array) -> Array: ...


FITTED: Registry[type[Fitted]] = Registry(
    {
        "mean": Mean,
        "votes": Votes,
        "ranks": Ranks,
        "logistic": Logistic,
        "forest": Forest,
        "machines": Machines,
        "neighbours": Neighbours,
    },
    type,
)


def _read(values: Any) -> Fitted:
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in FITTED:
        words = {"tag": str(kind), "known": ", ".join(FITTED)}
        raise PydanticCustomError("union_tag_invalid", "there is no vote of the kind {tag}; there are {known}", words)
    return TypeAdapter(FITTED[kind]).validate_python(values)


def _plain(ensemble: Fitted) -> Any:
    return TypeAdapter(type(ensemble)).dump_python(ensemble, mode="json", by_alias=True)


# As a file holds it.
Ensemble = Annotated[Fitted, PlainValidator(_read), PlainSerializer(_plain)]

# How each is fitted: what members answer (members, images, columns) with the best member first, what is true (images,) or of tags (images,
# tags), groups (images,), and the metric that the answer is to be good by.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, Metric], Ensemble]


@dataclass(frozen=True)
class Vote:
    """A way to vote."""

    fit: Fit
    shares_only: bool = False  # its scores are shares of votes or of points: metrics that take probabilities cannot use them
    picks_members: bool = False  # it picks its members itself, from all there are
    kinds: tuple[Kind, ...] = KINDS  # of targets that it can combine the answers to
    by_name: bool = False  # it is tried only where it is asked for
    robust: bool = False  # it is worth trying with few groups of images, where each further vote that is tried makes the choice worse

    def __call__(self, probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Fitted:
        """The vote fitted, behind the door where its input is checked. Raises: ValueError."""
        check(probabilities, target, groups, metric.target)
        return self.fit(probabilities, target, groups, metric)


ENSEMBLES: Registry[Vote] = Registry(
    {
        "best": Vote(best, robust=True),
        "soft": Vote(soft, robust=True),
        "hard": Vote(hard, shares_only=True, kinds=("classes", "tags")),
        "rank": Vote(rank, shares_only=True, kinds=("classes",)),
        "weighted": Vote(weighted, kinds=("classes", "tags"), robust=True),
        "greedy": Vote(greedy),
        "greedy_all": Vote(greedy_few, picks_members=True, robust=True),
        "stack": Vote(stack, kinds=("classes",)),
        "stack_forest": Vote(stack_forest, kinds=("classes",), by_name=True),
        "stack_svm": Vote(stack_svm, kinds=("classes",), by_name=True),
        "stack_knn": Vote(stack_knn, kinds=("classes",), by_name=True),
    },
    Vote,
)
