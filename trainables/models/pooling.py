"""From the map that a backbone gives of an image to what its heads get, where the backbone does not pool by itself."""

from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.models.backbone import TwoBackbones
from trainables.models.settings import POOLS
from trainables.registry import ConfigError, Mistake, choose


class Positions(nn.Module):
    """What a backbone without pooling gives to (n, positions, features).

    Maps have channels first or last, sequences of tokens such as the class token in front that are no position.
    """

    def __init__(self, prefix: int = 0, channels_last: bool = False):
        """
        Args:
            prefix: tokens in front that are no position.
            channels_last: of a map.
        """
        super().__init__()
        self.prefix = prefix
        self.channels_last = channels_last

    def forward(self, given: Tensor) -> Tensor:
        if given.ndim == 3:
            return given[:, self.prefix :]
        return given.flatten(1, 2) if self.channels_last else given.flatten(2).transpose(1, 2)


def build_pool(config: TrialConfig, backbone: nn.Module, features: int) -> nn.Module:
    """From what the backbone gives to what the heads get. Where that is no longer pooled by the backbone itself, the backbone is changed.

    Args:
        backbone: in training mode, with its weights.
        features: that it gives for one image.
    Raises: ConfigError for backbones that give no map, and for settings that do not fit.
    """
    pool = choose(POOLS, config.pool.name, "pool/name")
    if pool.own:
        return nn.Identity()
    positions = _unpool(config, backbone, features)
    return nn.Sequential(positions, pool.build(config.pool, features))


def _unpool(config: TrialConfig, backbone: nn.Module, features: int) -> Positions:
    """Let the backbone give its map, and say how that is read."""
    name = config.model.backbone
    if isinstance(backbone, TwoBackbones):
        raise _mistake(f"{name} and {config.model.second} have maps of their own, and {config.pool.name} takes one; leave out model/second")
    if not hasattr(backbone, "reset_classifier"):
        raise _mistake(f"timm's reset_classifier, which switches pooling off, is missing in {name}; use own, or another backbone")
    image = torch.zeros(1, 4 if config.model.edges == "stem" else 3, config.view.height, config.view.width)
    backbone.eval()
    try:
        # pyrefly: ignore[not-callable]  torch says of any attribute that it may be a tensor
        backbone.reset_classifier(0, "")
        with torch.no_grad():
            shape = tuple(backbone(image).shape)
    except (AssertionError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise _mistake(f"{name} cannot do without its own pooling ({error}); use own, or another backbone") from None
    backbone.train()
    if len(shape) == 3 and shape[2] == features:
        prefix: Any = getattr(backbone, "num_prefix_tokens", 0)
        return Positions(prefix)
    if len(shape) == 4 and features in (shape[1], shape[3]):
        last = shape[3] == features and (shape[1] != features or getattr(backbone, "output_fmt", "NCHW") == "NHWC")
        return Positions(channels_last=last)
    raise _mistake(
        f"{name} gives {shape[1:]} for an image without its pooling, no map of its {features} features; use own, or another backbone"
    )


def _mistake(message: str) -> ConfigError:
    return ConfigError([Mistake("pool/name", message)])
