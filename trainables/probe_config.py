"""The configuration of a linear probe: what it shares with other trials, and what makes it one."""

from collections.abc import Mapping
from typing import Any

from search_spaces.schema import nested
from trainables.config import TrialConfig

KEPT = ("data/", "labels/", "view/", "train/precision", "train/channels_last", "model/backbone", "model/weights")
PROBE = {
    "model/freeze": "backbone",
    "model/heads": "probe",
    "normalize": "backbone",  # nothing adapts to other statistics than those that the network was trained with
    "optimizer/lr": 1.0,
    "train/batch_size": 2,
    "epochs": 1,
}


def as_probe(values: Mapping[str, Any]) -> TrialConfig:
    """The linear probe of the backbone, the view and the data of a configuration, whose values are given by path. Raises: ConfigError."""
    shared = {path: value for path, value in values.items() if "/" not in path or path.startswith(KEPT)}
    return TrialConfig.from_values(nested(shared | PROBE))
