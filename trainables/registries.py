"""All names that a space can choose from, by the setting that chooses: for checking spaces and for the page that explains them."""

from collections.abc import Mapping
from typing import Any

from trainables.data.augment import POLICIES
from trainables.data.sampling import SAMPLERS
from trainables.data.views import CROPS
from trainables.losses import LOSSES
from trainables.mixing import MIXERS
from trainables.optimizers import OPTIMIZERS
from trainables.schedules import SCHEDULES

REGISTRIES: dict[str, Mapping[str, Any]] = {
    "view/crop": CROPS,
    "augment/policy": POLICIES,
    "mix/name": MIXERS,
    "sampler/name": SAMPLERS,
    "loss/name": LOSSES,
    "optimizer/name": OPTIMIZERS,
    "schedule/name": SCHEDULES,
}
