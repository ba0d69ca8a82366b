"""Ensembles: how the probabilities of several members become one answer."""

from collections.abc import Callable

import numpy as np

from analysis.ensemble.voting import hard_vote, soft_vote

# Each takes (members, photos, classes) and gives scores (photos, classes): rows sum to 1, the highest is the answer.
ENSEMBLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"soft": soft_vote, "hard": hard_vote}
