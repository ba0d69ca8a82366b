"""The linear probes of a space: each backbone that it can draw and that has weights, at each of its views."""

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.schema import Space
from trainables.config import TrialConfig, default_of
from trainables.data.views import View
from trainables.probe_config import as_probe
from tuner.preflight import values_of

NOTHING = "no backbone of this space has weights of its own (model/weights: none)"


def candidates(space: Space, fixed: Mapping[str, Any], tasks: Sequence[Any] = ()) -> list[TrialConfig]:
    """The probes of a space: each backbone with weights at each view, the smallest views of all backbones first.

    Args:
        fixed: values that the run adds to every configuration.
        tasks: those that each is probed for; empty: the default.
    """
    usual, possible = space.settled(space.defaults(default_of)), values_of(space)
    usual = {path: value for path, value in usual.items() if not path.startswith("view/")}
    backbones = possible["model/backbone"]
    weights = [one for one in possible.get("model/weights", ["imagenet"]) if one != "none"]
    every = [{"task": task} for task in tasks] or [{}]
    found: dict[tuple[View, str, str, str], TrialConfig] = {}
    for view in space.grid("view"):
        for backbone in backbones:
            for kind in weights:
                for task in every:
                    config = as_probe({**usual, **view, **fixed, **task, "model/backbone": backbone, "model/weights": kind})
                    found.setdefault((View.of(config.view), backbone, kind, str(task)), config)
    return sorted(found.values(), key=lambda one: (one.view.height * one.view.width, str(View.of(one.view))))
