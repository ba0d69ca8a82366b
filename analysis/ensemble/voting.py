"""Votes: how the probabilities of several members become one answer, without or with a weight for each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.metrics import confusion, macro_f1


@dataclass(frozen=True)
class Mean:
    """The weighted mean of the members' probabilities."""

    weights: tuple[float, ...]  # one a member, from 0 on, together 1
    kind: Literal["mean"] = "mean"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (photos, classes) of members (members, photos, classes)."""
        return np.einsum("m,mnc->nc", np.array(self.weights), probabilities)


@dataclass(frozen=True)
class Votes:
    """The share of votes; each member votes for its likeliest class."""

    weights: tuple[float, ...]  # alike for all members, together 1
    kind: Literal["votes"] = "votes"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Shares (photos, classes) of the votes of members (members, photos, classes).

        The mean probability joins as one more voter that shares its vote out, so ties go to the higher summed probability, then to the
        lower class. It cannot overturn a majority: that takes a lead of a whole vote, which only a class that is certain to every
        member has.
        """
        members, _, classes = probabilities.shape
        votes = np.eye(classes)[probabilities.argmax(axis=2)].sum(axis=0)
        return (votes + probabilities.mean(axis=0)) / (members + 1)


@dataclass(frozen=True)
class Ranks:
    """The mean rank of each class among the classes of a photo: how sure a member is does not count, only in which order it has them."""

    weights: tuple[float, ...]  # alike for all members, together 1
    kind: Literal["ranks"] = "ranks"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Shares (photos, classes) of the points of members (members, photos, classes): none for a photo's last class, one for the next,
        and so on. Classes that a member holds for equally likely share their points.

        Source: Borda, Mémoire sur les élections au scrutin, 1781.
        """
        points = np.stack([(probabilities > probabilities[..., [k]]).sum(axis=-1) for k in range(probabilities.shape[2])], axis=-1)
        below = np.stack([(probabilities < probabilities[..., [k]]).sum(axis=-1) for k in range(probabilities.shape[2])], axis=-1)
        shared = (below - points + probabilities.shape[2] - 1) / 2
        total = shared.mean(axis=0)
        return total / total.sum(axis=1, keepdims=True)


def alike(members: int) -> tuple[float, ...]:
    """The same weight for each of so many members."""
    return (1 / members,) * members


def best(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray) -> Mean:
    """The one member with the highest macro F1; the first where several have it."""
    scores = member_scores(probabilities, target)
    return Mean(tuple(float(index == scores.argmax()) for index in range(len(scores))))


def soft(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray) -> Mean:
    """The mean probability."""
    return Mean(alike(len(probabilities)))


def hard(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray) -> Votes:
    """The majority of the members' likeliest classes."""
    return Votes(alike(len(probabilities)))


def rank(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray) -> Ranks:
    """The mean rank."""
    return Ranks(alike(len(probabilities)))


def member_scores(probabilities: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Macro F1 (members,) of the likeliest classes of members (members, photos, classes)."""
    classes = probabilities.shape[2]
    return np.array([macro_f1(confusion(target, member.argmax(axis=1), classes)) for member in probabilities])
