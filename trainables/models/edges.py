"""Two ways for a channel of edges into a network that was made for three colours; neither changes its first answers."""

import torch
from torch import Tensor, nn

from trainables.registry import ConfigError, Mistake


class MixEdges(nn.Module):
    """Images (n, 4, height, width) to (n, 3, height, width) by a 1x1 convolution that begins as "the colours, no edges"."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, kernel_size=1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3, 4)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def widen(network: nn.Module, size: tuple[int, int]) -> None:
    """Let the first convolution of a timm network in eval mode take a fourth channel, with weights that begin at zero.

    Args:
        size: (height, width) in pixels of an image that the network takes.
    Raises: ConfigError where timm names no first convolution, or one that does not answer as before.
    """
    image = torch.linspace(-2, 2, 4 * size[0] * size[1]).reshape(1, 4, *size)
    before = _answer(network, image[:, :3])
    first = network.pretrained_cfg.get("first_conv") or ()
    layers = [network.get_submodule(name) for name in ([first] if isinstance(first, str) else first)]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        layer.weight = nn.Parameter(torch.cat([layer.weight.detach(), torch.zeros_like(layer.weight[:, :1])], dim=1))
        layer.in_channels = 4
    try:
        # Some layers standardise their weights over all channels, so that even zeros change them.
        same = convolutions and torch.allclose(_answer(network, image), before, rtol=1e-3, atol=1e-4)
    except RuntimeError:
        same = False
    if not same:
        name = network.pretrained_cfg["architecture"]
        raise ConfigError([Mistake("model/edges", f"the first layer of {name} cannot take another channel; use mix")])


@torch.no_grad()
def _answer(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)
