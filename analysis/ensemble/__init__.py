"""Ensembles: how the probabilities of several members become one answer."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated

import numpy as np
from pydantic import Field

from analysis.ensemble.greedy import greedy
from analysis.ensemble.stacking import Boosted, Logistic, boost, stack
from analysis.ensemble.voting import Mean, Ranks, Votes, best, check, hard, rank, soft, weighted
from trainables.metrics import Metric

# Each kind is frozen, holds plain values alone, so that a file of it is data, and is called with probabilities (members, photos,
# classes): it returns scores (photos, classes) whose rows sum to 1 and whose highest is the answer. A photo's answer depends on no
# other photo.
Ensemble = Annotated[Mean | Votes | Ranks | Logistic | Boosted, Field(discriminator="kind")]

# How each is fitted: probabilities (members, photos, classes) with the best member first, true classes (photos,), people (photos,), and
# the metric that the answer is to be good by.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, Metric], Ensemble]


def checked(fit: Fit) -> Fit:
    """The fit, behind the door where its input is checked."""

    @wraps(fit)
    def fit_checked(probabilities: np.ndarray, target: np.ndarray, people: np.ndarray, metric: Metric) -> Ensemble:
        check(probabilities, target, people)
        return fit(probabilities, target, people, metric)

    return fit_checked


ENSEMBLES: dict[str, Fit] = {
    "best": checked(best),
    "soft": checked(soft),
    "hard": checked(hard),
    "rank": checked(rank),
    "weighted": checked(weighted),
    "greedy": checked(greedy),
    "stack": checked(stack),
    "boost": checked(boost),
}
# Votes whose scores are shares of votes or of points: metrics that take probabilities cannot use them.
SHARES_ONLY = frozenset({"hard", "rank"})
