"""The linear probes of a space: each backbone that it can draw and that has weights, at each of its views."""

from collections.abc import Mapping
from typing import Any

from search_spaces.schema import Space, nested
from trainables.config import TrialConfig, default_of
from trainables.data.views import View
from tuner.preflight import values_of

NOTHING = "no backbone of this space has weights of its own (model/weights: none)"
KEPT = ("data/", "labels/", "train/precision", "train/channels_last")  # settings that a probe shares with the other trials
PROBE = {
    "model/freeze": "backbone",
    "model/heads": "probe",
    "normalize": "backbone",  # nothing adapts to other statistics than those that the network was trained with
    "optimizer/lr": 1.0,
    "train/batch_size": 2,
    "epochs": 1,
}


def candidates(space: Space, fixed: Mapping[str, Any]) -> list[TrialConfig]:
    """The probes of a space: each backbone with weights at each view, the smallest views of all backbones first.

    Args:
        fixed: values that the run adds to every configuration.
    """
    usual, possible = space.settled(space.defaults(default_of)), values_of(space)
    shared = {path: value for path, value in usual.items() if "/" not in path or path.startswith(KEPT)}
    backbones = possible["model/backbone"]
    weights = [one for one in possible.get("model/weights", ["imagenet"]) if one != "none"]
    found: dict[tuple[View, str, str], TrialConfig] = {}
    for view in space.grid("view"):
        for backbone in backbones:
            for kind in weights:
                values = {**shared, **view, **fixed, "model/backbone": backbone, "model/weights": kind, **PROBE}
                config = TrialConfig.from_values(nested(values))
                found.setdefault((View.of(config.view), backbone, kind), config)
    return sorted(found.values(), key=lambda one: (one.view.height * one.view.width, str(View.of(one.view))))
