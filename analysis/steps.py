"""Steps after the vote: how an answer is corrected, photo by photo, by what was learned on photos whose classes are known."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from trainables.data.labels import Scheme

Step = Annotated[Offsets | TopTwo | Shares, Field(discriminator="kind")]
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, Scheme], Step]
STEPS: dict[str, Fit] = {}
