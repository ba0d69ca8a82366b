"""Ensembles: how the probabilities of several members become one answer."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from analysis.ensemble.voting import Mean, Ranks, Votes, best, hard, rank, soft

# Each kind is frozen, holds plain values alone, so that a file of it is data, and is called with probabilities (members, photos,
# classes): it returns scores (photos, classes) whose rows sum to 1 and whose highest is the answer. A photo's answer depends on no
# other photo.
Ensemble = Annotated[Mean | Votes | Ranks, Field(discriminator="kind")]

# How each is fitted: probabilities (members, photos, classes) with the best member first, true classes (photos,), people (photos,).
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Ensemble]
ENSEMBLES: dict[str, Fit] = {"best": best, "soft": soft, "hard": hard, "rank": rank}
