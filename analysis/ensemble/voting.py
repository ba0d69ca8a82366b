"""Votes in which every member counts alike."""

import numpy as np


def soft_vote(probabilities: np.ndarray) -> np.ndarray:
    """The mean probability (photos, classes) of members (members, photos, classes)."""
    return probabilities.mean(axis=0)


def hard_vote(probabilities: np.ndarray) -> np.ndarray:
    """The share of votes (photos, classes) of members (members, photos, classes), each voting for its likeliest class.

    The mean probability joins as one more voter that shares its vote out, so ties go to the higher summed probability, then
    to the lower class. It cannot overturn a majority: that takes a lead of a whole vote, which only a class that is certain
    to every member has.
    """
    members, _, classes = probabilities.shape
    votes = np.eye(classes)[probabilities.argmax(axis=2)].sum(axis=0)
    return (votes + soft_vote(probabilities)) / (members + 1)
