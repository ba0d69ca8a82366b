"""The configuration of a probe: what it shares with other trials, and what makes it one."""

from collections.abc import Mapping
from typing import Any, Literal

from search_spaces.schema import nested
from trainables.config import TrialConfig

KEPT = ("data/", "labels/", "view/", "train/precision", "train/channels_last", "model/backbone", "model/weights")
METHODS = {"probe": "linear", "zero_shot": "zero-shot"}  # what a probe is called, by model/heads
PROBE = {
    "model/freeze": "backbone",
    "normalize": "backbone",  # nothing adapts to other statistics than those that the network was trained with
    "optimizer/lr": 1.0,
    "train/batch_size": 2,
    "epochs": 1,
}


def as_probe(values: Mapping[str, Any], heads: Literal["probe", "zero_shot"] = "probe") -> TrialConfig:
    """The probe of the backbone, the view and the data of a configuration, whose values are given by path. Raises: ConfigError.

    Args:
        heads: linear ones that are fitted, or such that are made of the configuration's texts.
    """
    kept = KEPT if heads == "probe" else (*KEPT, "model/texts")
    shared = {path: value for path, value in values.items() if "/" not in path or path.startswith(kept)}
    return TrialConfig.from_values(nested(shared | PROBE | {"model/heads": heads}))
