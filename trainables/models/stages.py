"""The stages and layers of a timm network, from the input to the features."""

from typing import Any

from timm.models import group_parameters
from torch import nn


def stages(network: nn.Module) -> list[list[str]]:
    """Names of the parameters of each stage: the stem, then what timm takes for a stage, which in transformers is a block."""
    return _groups(network, coarse=True)


def layers(network: nn.Module) -> list[list[str]]:
    """Names of the parameters of each layer: the stem, then the blocks of all stages, as far as timm tells them apart."""
    return _groups(network, coarse=False)


def _groups(network: nn.Module, coarse: bool) -> list[list[str]]:
    if hasattr(network, "group_matcher"):
        # pyrefly: ignore[bad-assignment]  timm's own annotations end at dict; asked for no values, it gives names
        groups: list[list[str]] = list(group_parameters(network, network.group_matcher(coarse=coarse)).values())
    else:
        groups = _by_feature_info(network)
    axes = {name: parameter.ndim for name, parameter in network.named_parameters()}
    # The norm behind the last stage is none of its own.
    if len(groups) > 1 and all(axes[name] <= 1 for name in groups[-1]):
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _by_feature_info(network: nn.Module) -> list[list[str]]:
    """A group begins with each module that timm can take features from; what stands before the first is the stem."""
    features: Any = getattr(network, "feature_info", ())
    starts = tuple(info["module"] + "." for info in features)
    groups: list[list[str]] = [[] for _ in range(len(starts) + 1)]
    group = 0
    for name, _ in network.named_parameters():
        group = next((number for number, start in enumerate(starts, start=1) if name.startswith(start)), group)
        groups[group].append(name)
    return [names for names in groups if names]
