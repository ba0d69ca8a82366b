"""The linear probes of a space: each backbone that it can draw and that has weights, at each of its views."""

from collections.abc import Mapping
from typing import Any

from search_spaces.schema import Space
from trainables.config import TrialConfig, default_of
from trainables.data.views import View
from trainables.probe_config import as_probe
from tuner.preflight import values_of

NOTHING = "no backbone of this space has weights of its own (model/weights: none)"


def candidates(space: Space, fixed: Mapping[str, Any]) -> list[TrialConfig]:
    """The probes of a space: each backbone with weights at each view, the smallest views of all backbones first.

    Args:
        fixed: values that the run adds to every configuration.
    """
    usual, possible = space.settled(space.defaults(default_of)), values_of(space)
    usual = {path: value for path, value in usual.items() if not path.startswith("view/")}
    backbones = possible["model/backbone"]
    weights = [one for one in possible.get("model/weights", ["imagenet"]) if one != "none"]
    found: dict[tuple[View, str, str], TrialConfig] = {}
    for view in space.grid("view"):
        for backbone in backbones:
            for kind in weights:
                config = as_probe({**usual, **view, **fixed, "model/backbone": backbone, "model/weights": kind})
                found.setdefault((View.of(config.view), backbone, kind), config)
    return sorted(found.values(), key=lambda one: (one.view.height * one.view.width, str(View.of(one.view))))
