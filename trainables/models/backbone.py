"""Backbones: any timm network by name, with the weights that the settings ask for."""

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trainables.config import ConfigError, Mistake, ModelConfig, nearest


def check_backbone(name: str) -> None:
    """Raises: ConfigError with the nearest names when timm has no such network, or none with the weights named after the dot."""
    architecture, _, tag = name.partition(".")
    known = timm.list_pretrained(f"{architecture}.*") if tag and timm.is_model(architecture) else timm.list_models()
    if not timm.is_model(name) or (tag and name not in known):
        raise ConfigError([Mistake("model/backbone", f"timm has no {name!r}{nearest(name, known) or '; timm.list_models() lists them'}")])


def build_backbone(config: ModelConfig, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """The network without its classifier, and how many features it gives for one photo.

    Args:
        size: (height, width) of the input in pixels; networks with a fixed grid are built for it.
    Raises: ConfigError for an unknown name, a size that the network cannot take, or weights that cannot be had.
    """
    name, weights = config.backbone, config.weights
    check_backbone(name)
    fixed_grid = timm.get_pretrained_cfg(name).fixed_input_size
    try:
        backbone = timm.create_model(name, num_classes=0, **({"img_size": size} if fixed_grid else {}))
        # One black photo: some networks notice a size that they cannot take only now, and it counts the features of all alike.
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, *size)).shape[1]
    except (AssertionError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ConfigError([Mistake("view/size", f"{name} cannot take {size[0]}x{size[1]} pixels ({error})")]) from None
    if weights == "imagenet":
        backbone.load_state_dict(_imagenet(name, size if fixed_grid else None))
    elif weights != "none":
        load_weights(backbone, Path(weights.replace("{backbone}", name)))
    return backbone.train(), features


def load_weights(backbone: nn.Module, file: Path) -> None:
    """Load a state dict (safetensors, or a torch file of tensors only) key by key; a classifier in it is left out.

    Raises: ConfigError that names keys which are missing, unknown or of another shape.
    """
    if not file.is_file():
        raise _weights_mistake(f"no such file: {file}. Write imagenet, none, or the path of a state dict")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
        state = {str(key): value.detach() for key, value in state.get("state_dict", state).items()}
    except (SafetensorError, OSError, RuntimeError, AttributeError, ValueError, EOFError, KeyError) as error:
        raise _weights_mistake(f"{file} is no state dict: {error}") from None
    except Exception as error:
        # torch hides pickle's own UnpicklingError behind long advice to trust the file; a user's file is data, so it is refused.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _weights_mistake(f"{file} is no state dict of tensors only; save model.state_dict() with safetensors") from None

    classifier = backbone.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{part}." for part in ([classifier] if isinstance(classifier, str) else classifier))
    state = {key: value for key, value in state.items() if not key.startswith(heads)} if heads else state
    own = backbone.state_dict()
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


def _imagenet(name: str, size: tuple[int, int] | None) -> dict[str, torch.Tensor]:
    """timm's pretrained weights for the network without its classifier, fetched once into the hub's cache."""
    try:
        pretrained = timm.create_model(name, pretrained=True, num_classes=0, **({"img_size": size} if size else {}))
    except Exception as error:
        # The hub's client raises a dozen unrelated kinds: no network, no such file, refused, half a download.
        raise _weights_mistake(
            f"the imagenet weights of {name} cannot be fetched ({type(error).__name__}). Run once where the model hub can be reached "
            "and keep its cache (HF_HOME), or give a file: --set model/weights=FILE, or train from scratch: --set model/weights=none"
        ) from None
    return pretrained.state_dict()


def _weights_mistake(message: str) -> ConfigError:
    return ConfigError([Mistake("model/weights", message)])
