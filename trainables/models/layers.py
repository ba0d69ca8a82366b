"""Layer-wise decay of the learning rate."""

from torch import nn

from trainables.models.backbone import networks
from trainables.models.stages import layers


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied by, by name: `decay` once for each layer from the top down to it.

    1 for all that stands outside the backbone, which begins again: heads, neck, hidden layers, the mixing of edges. Each of two
    backbones is counted from its own top.

    Source: Clark et al., ELECTRA, ICLR 2020; for images Bao et al., BEiT, ICLR 2022.
    """
    scales = {name: 1.0 for name, _ in model.named_parameters()}
    for prefix, network in networks(model.get_submodule("backbone")).items():
        for depth, names in enumerate(reversed(layers(network)), start=1):
            scales |= {f"backbone.{prefix}{name}": decay**depth for name in names}
    return scales
