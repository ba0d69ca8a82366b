"""Votes: how the probabilities of several members become one answer, without or with a weight for each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.votes.arrays import Array, constant, library, picked
from trainables.data.targets import Kind, no_answer
from trainables.metrics import Metric
from trainables.metrics.metric import TAGGED

LEAST = 1e-12  # what a probability counts for at least, so that one sure mistake costs much and not everything
STEPS = 2000  # of EM, at most
CLOSE = 1e-4  # nats that the log loss may be above the lowest there is
PAIRS = 4096  # of an image's classes that are compared at a time
SMALL = 1e-3  # a weight of less than this share of an equal one is none: such members need not be asked at all


@dataclass(frozen=True)
class Mean:
    """The weighted mean of the members' answers."""

    weights: tuple[float, ...]  # one a member, from 0 on, together 1
    kind: Literal["mean"] = "mean"

    def __call__(self, probabilities: Array) -> Array:
        """The answer (images, columns) of members (members, images, columns)."""
        return library(probabilities).einsum("m,mnc->nc", constant(self.weights, probabilities), probabilities)


@dataclass(frozen=True)
class Votes:
    """The share of votes; each member votes for its most probable class, or for every tag that is more probable than not."""

    kind: Literal["votes"] = "votes"
    tags: bool = False  # whether tags are voted for

    def __call__(self, probabilities: Array) -> Array:
        """Shares (images, classes) of the votes of members (members, images, classes).

        The mean probability joins as one more member that divides its vote, so ties go to the higher summed probability, then to the
        lower class. It cannot overturn a majority: that takes a lead of a whole vote, which only a class that is certain to every
        member has.
        """
        members, _, classes = probabilities.shape
        if self.tags:
            xp = library(probabilities)
            votes = xp.where(probabilities >= TAGGED, 1.0, 0.0).sum(axis=0)
        else:
            votes = sum(picked(member.argmax(axis=1), classes) for member in probabilities)
        return (votes + probabilities.mean(axis=0)) / (members + 1)


@dataclass(frozen=True)
class Ranks:
    """The mean rank of each class among the classes of an image: how sure a member is does not count, only in which order it has them."""

    kind: Literal["ranks"] = "ranks"

    def __call__(self, probabilities: Array) -> Array:
        """Shares (images, classes) of the points of members (members, images, classes): one for an image's last class, two for the next,
        and so on. Classes that a member holds for equally likely share their points.

        Source: Borda, Mémoire sur les élections au scrutin, 1781.
        """
        members, _, classes = probabilities.shape
        rivals = [slice(first, first + max(1, PAIRS // classes)) for first in range(0, classes, max(1, PAIRS // classes))]
        # Of the classes of an image, how many are below each less how many are above it: a class's place is half of that from the middle.
        sign = library(probabilities).sign
        lead = sum(sign(member[:, :, None] - member[:, None, some]).sum(axis=2) for member in probabilities for some in rivals)
        # Halves add up exactly, so classes with as many points are level bitwise.
        points = (lead + members * (classes + 1)) / 2
        return points / points.sum(axis=1, keepdims=True)


def check(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, kind: Kind = "classes") -> None:
    """Raises: ValueError that names every mistake, unless each member has an answer for each image, and each image a truth and a group."""
    if probabilities.ndim != 3 or 0 in probabilities.shape:
        raise ValueError(f"probabilities must be of the shape (members, images, classes), none of these 0; theirs is {probabilities.shape}")
    members, images, classes = probabilities.shape
    mistakes = [
        f"the {words} are of the shape {found.shape}, the members' images are {images}; give one for each image, in the same order"
        for words, found, shape in (
            ("true tags" if kind == "tags" else "true classes", target, (images, classes) if kind == "tags" else (images,)),
            ("groups", groups, (images,)),
        )
        if found.shape != shape
    ]
    if kind == "classes" and (not np.issubdtype(target.dtype, np.integer) or ((target < 0) | (target >= classes)).any()):
        mistakes.append(f"true classes must be integers between 0 and {classes - 1}, the last class that the members have")
    for number, member in enumerate(probabilities):
        wrong_rows = no_answer(member, kind)
        if wrong_rows.any():
            wrong = f"{wrong_rows.sum()} of {images} images, image {wrong_rows.argmax()} the first"
            mistakes.append(f"member {number}: what it has for {wrong}, is not finite, is below 0 or does not sum to 1; leave it out")
    if mistakes:
        raise ValueError("\n".join(mistakes))


def best(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Mean:
    """The one member with the best score; the first where several have it."""
    scores = metric.sign * member_scores(probabilities, target, metric)
    return Mean(tuple(float(index == scores.argmax()) for index in range(len(scores))))


def soft(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Mean:
    """The mean probability."""
    return Mean((1 / len(probabilities),) * len(probabilities))


def hard(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Votes:
    """The majority of the members' most probable classes, or of their tags."""
    return Votes(tags=metric.target == "tags")


def rank(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Ranks:
    """The mean rank."""
    return Ranks()


def weighted(probabilities: np.ndarray, target: np.ndarray, groups: np.ndarray, metric: Metric) -> Mean:
    """The mean probability with the weights that make its log loss lowest.

    Found by EM for the weights of a mixture, from equal ones on: members that are alike get the same weight.

    Source: Cover, An Algorithm for Maximizing Expected Log Investment Return, IEEE Transactions on Information Theory, 1984.
    """
    if metric.target == "tags":
        # Each pair of an image and a tag is an image of two classes.
        true = np.where(target, probabilities, 1 - probabilities).reshape(len(probabilities), -1)
    else:
        true = probabilities[:, np.arange(len(target)), target]
    true = np.maximum(true, LEAST)
    members, images = true.shape
    weights = np.full(members, 1 / members)
    for _ in range(STEPS):
        gain = true @ (1 / (weights @ true)) / images
        # No weights at all have a log loss that is lower by more than the logarithm of the highest gain.
        if np.log(gain.max()) < CLOSE:
            break
        weights *= gain
    weights[weights < SMALL / members] = 0
    return Mean(tuple((weights / weights.sum()).tolist()))


def member_scores(probabilities: np.ndarray, target: np.ndarray, metric: Metric) -> np.ndarray:
    """The score (members,) of members (members, images, classes)."""
    return np.array([metric.score(target, member) for member in probabilities])
