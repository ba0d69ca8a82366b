"""Where in a backbone an image is still a map: the last layer whose positions the features come from."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.models.backbone import networks

LEAST = 12  # positions that a map should have: 3 x 3 fields hardly say where
SEED = 0  # of the noise that the layers are tried with


class NoMapError(Exception):
    """A backbone has no layer that is a map of the image; the message says so in words."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a backbone whose output is a map of the image."""

    name: str  # of the module in the backbone
    module: nn.Module
    to_map: Callable[[Tensor], Tensor]  # what the layer puts out, or its gradient, to (n, channels, height, width)
    size: tuple[int, int]  # (height, width) of the map in positions


def spatial_layers(backbone: nn.Module, images: tuple[int, int, int]) -> list[Layer]:
    """The layer to look at of each network of a backbone: one, or two.

    It is the last layer that is a map of the image and whose positions have an influence on the features. timm's `feature_info` names the
    layers that are maps, in convolutional networks and in transformers, whose tokens are one; of a network without it the convolutions are
    tried. Influence is tried, not looked up: behind the last block of a ViT only the class token goes on, so that the tokens of the image
    count one block earlier. A map of fewer than LEAST positions is taken only where no earlier layer has more.

    Args:
        backbone: from images (n, channels, height, width) to features (n, features), in eval mode.
        images: (channels, height, width) of its input.
    Raises: NoMapError where a network has no such layer.
    """
    return [_last(network, prefix, images) for prefix, network in networks(backbone).items()]


def _last(network: nn.Module, prefix: str, images: tuple[int, int, int]) -> Layer:
    outputs, gradients = _try(network, images)
    stages: Any = getattr(network, "feature_info", ())
    channels: dict[str, int | None] = {stage["module"]: stage.get("num_chs") for stage in stages if stage["module"] in outputs}
    maps = [
        Layer(prefix + name, network.get_submodule(name), to_map, _size(to_map(outputs[name])))
        for name in (channels or _convolutions(network, outputs))
        if (to_map := _map_of(network, outputs[name], channels.get(name), images[1:]))
        if name in gradients and to_map(gradients[name]).any()
    ]
    fine = [layer for layer in maps if layer.size[0] * layer.size[1] >= LEAST]
    if not maps:
        raise NoMapError(f"{type(network).__name__} has no layer that is a map of the image")
    return fine[-1] if fine else maps[-1]


def _try(network: nn.Module, images: tuple[int, int, int]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """What each layer puts out for noise, by name, in the order in which an image comes by, and the gradient of the features for it."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # A layer that an image comes by twice counts where it does so last.
            outputs.pop(name, None)
            if isinstance(output, Tensor) and output.requires_grad and len(output) == 1:
                outputs[name] = output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]
    noise = torch.Generator().manual_seed(SEED)
    parameter = next(network.parameters(), torch.zeros(()))
    try:
        with torch.enable_grad():
            given = torch.randn(1, *images, generator=noise).to(parameter.device).requires_grad_()
            features = network(given)
            # In random directions: features behind a norm add up to the same whatever the image is.
            features = (features * torch.randn(features.shape, generator=noise).to(features)).sum()
            found = torch.autograd.grad(features, list(outputs.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, {name: one for name, one in zip(outputs, found, strict=True) if one is not None}


def _map_of(network: nn.Module, output: Tensor, channels: int | None, image: tuple[int, int]) -> Callable[[Tensor], Tensor] | None:
    """How an output becomes a map (n, channels, height, width); None where it is none.

    Args:
        channels: that it has, as far as is known.
        image: (height, width) of the input.
    """
    height, width = image
    if output.ndim == 4:
        last = channels is not None and output.shape[3] == channels and (output.shape[1] != channels or _is_last(network))
        to_map = (lambda one: one.permute(0, 3, 1, 2)) if last else (lambda one: one)
        down, across = to_map(output).shape[2:]
    elif output.ndim == 3 and channels is not None:
        # Some networks add the class token to the tokens of the image late.
        prefix: Any = getattr(network, "num_prefix_tokens", 0)
        grids = ((before, _grid(output.shape[1] - before, height / width)) for before in (prefix, 0))
        before, (down, across) = next(((before, grid) for before, grid in grids if grid), (0, (0, 0)))

        def to_map(one: Tensor) -> Tensor:
            return one[:, before:].transpose(1, 2).unflatten(2, (down, across))

    else:
        return None
    # The steps from position to position are alike in both directions, give or take a border.
    alike = abs(down * width - across * height) <= max(height, width)
    return to_map if down * across > 1 and down <= height and across <= width and alike else None


def _size(found: Tensor) -> tuple[int, int]:
    return found.shape[2], found.shape[3]


def _convolutions(network: nn.Module, names: Iterable[str]) -> list[str]:
    return [name for name in names if isinstance(network.get_submodule(name), nn.Conv2d)]


def _grid(tokens: int, aspect: float) -> tuple[int, int] | None:
    """Rows and columns of so many tokens, as many as fit an image of this height by its width; None where they fill no rectangle."""
    down = max(1, round((tokens * aspect) ** 0.5))
    return None if tokens % down else (down, tokens // down)


def _is_last(network: nn.Module) -> bool:
    return getattr(network, "output_fmt", "NCHW") == "NHWC"
