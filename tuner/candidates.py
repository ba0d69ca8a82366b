"""The probes of a space: each backbone that it can draw and that has weights, at each of its views."""

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.schema import Space, holds
from trainables.config import TrialConfig, default_of
from trainables.data.views import View
from trainables.probe_config import as_probe
from tuner.preflight import values_of

NOTHING = "no backbone of this space has weights of its own (model/weights: none)"


def candidates(space: Space, fixed: Mapping[str, Any], tasks: Sequence[Any] = ()) -> list[TrialConfig]:
    """The probes of a space: each backbone with weights at each view, the smallest views of all backbones first; with fitted heads and,
    where the space can draw zero_shot beside these, with heads of texts.

    Args:
        fixed: values that the run adds to every configuration.
        tasks: those that each is probed for; empty: the default.
    """
    usual, possible = space.settled(space.defaults(default_of)), values_of(space)
    usual = {path: value for path, value in usual.items() if not path.startswith("view/")}
    backbones = possible["model/backbone"]
    weights = [one for one in possible.get("model/weights", ["imagenet"]) if one != "none"]
    every = [{"task": task} for task in tasks] or [{}]
    found: dict[tuple[str, ...], TrialConfig] = {}
    for view in space.grid("view"):
        for backbone in backbones:
            for kind in weights:
                for task in every:
                    values = {**usual, **view, **fixed, **task, "model/backbone": backbone, "model/weights": kind}
                    configs = [as_probe(values)]
                    if kind != "imagenet" and _draws_zero_shot(space, values):
                        each = [{"model/texts": texts} for texts in possible.get("model/texts", [])] or [{}]
                        configs += [as_probe({**values, **texts}, "zero_shot") for texts in each]
                    for one in configs:
                        found.setdefault((str(View.of(one.view)), str(one.model), str(task)), one)
    return sorted(found.values(), key=lambda one: (one.view.height * one.view.width, str(View.of(one.view))))


def _draws_zero_shot(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether a configuration of the space with these values may have heads of texts."""
    for parameter in space.parameters:
        if parameter.path == "model/heads":
            return parameter.domain.holds("zero_shot") and holds(parameter.when, values)
    return values.get("model/heads") == "zero_shot"
