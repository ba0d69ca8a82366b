"""timm's networks by numbers: what they cost, how they were pre-trained, how good they were at that, and whether their weights are at hand.

Nothing is downloaded and no weights are allocated: networks are built on torch's meta device, where tensors have shapes alone.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch.utils.flop_counter import FlopCounterMode

from trainables.models.backbone import UNFIT, check_backbone
from trainables.models.offline import offline_words
from trainables.models.settings import weights_file
from trainables.registry import ConfigError, Mistake, nearest

# Top-1 accuracy in percent of weights that timm has, as those who trained them published it.
EFFICIENTNET = "Tan and Le, EfficientNet, 2019, with AutoAugment"
LITE = "Google, EfficientNet-Lite, 2020"
PUBLISHED = {
    **{
        f"tf_efficientnet_b{size}.aa_in1k": (top1, EFFICIENTNET)
        for size, top1 in enumerate((77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3))
    },
    **{f"tf_efficientnet_lite{size}.in1k": (top1, LITE) for size, top1 in enumerate((75.1, 76.7, 77.6, 79.8, 81.5))},
}
FILES = ("model.safetensors", "pytorch_model.bin")  # of weights, as the hub has them


@dataclass(frozen=True)
class Accuracy:
    """Of one set of weights on ImageNet's validation images."""

    top1: float  # percent
    weights: str  # whose it is: timm's name with the tag, or torchvision's
    source: str


@dataclass(frozen=True)
class Backbone:
    """A network and the weights that its name stands for."""

    name: str
    parameters: int  # as published: with the classifier of its pre-training
    megabytes: float  # of a trial's weights: in single precision, without the classifier
    gflops: float | None  # multiply-adds of one image, in thousands of millions, as papers count; None where they cannot be counted
    size: int  # pixels of the images of its pre-training
    accuracy: Accuracy | None
    weights: str  # where they are at hand; else whether there are some to download


def matching(patterns: Sequence[str]) -> list[str]:
    """The names of timm's networks that fit some pattern, such as `resnet34` or `efficientnet_b*`; with a dot, those of weights.

    Raises: ConfigError naming the patterns that fit none, with the nearest names.
    """
    found, mistakes = [], []
    for pattern in patterns:
        known = timm.list_pretrained() if "." in pattern else timm.list_models()
        own = [name for name in known if fnmatchcase(name, pattern)]
        found += own
        if not own:
            try:
                check_backbone(pattern, "backbone")
                found.append(pattern)
            except ConfigError:
                stem = pattern.replace("*", "")
                mistakes.append(Mistake("backbone", f"no network of timm fits {pattern!r}{nearest(stem, known) or ''}"))
    if mistakes:
        raise ConfigError(mistakes)
    return list(dict.fromkeys(found))


def measure(name: str, results: Mapping[str, float], weights: str = "imagenet") -> Backbone:
    """The numbers of a network.

    Args:
        results: accuracies that are known beside those here, by timm's names with tags.
        weights: as model/weights has them.
    """
    card = timm.get_pretrained_cfg(name)
    size = card.input_size[-1] if card else 224
    with torch.device("meta"):
        network = timm.create_model(name).eval().requires_grad_(False)
    parameters = sum(one.numel() for one in network.parameters())
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, size, size, device="meta"))
        gflops = counter.get_total_flops() / 2e9
    except (*UNFIT, TypeError):
        gflops = None
    if hasattr(network, "reset_classifier"):
        network.reset_classifier(0)
    megabytes = sum(4 * one.numel() for one in (*network.parameters(), *network.buffers())) / 1e6
    return Backbone(name, parameters, megabytes, gflops, size, accuracy_of(name, parameters, results), at_hand(name, weights))


def accuracy_of(name: str, parameters: int, results: Mapping[str, float]) -> Accuracy | None:
    """What the weights of this name reached; where that is not known, the best of other weights of the same network, which it names."""
    card = timm.get_pretrained_cfg(name)
    network, tag = name.partition(".")[0], card.tag if card else ""
    full = f"{network}.{tag}" if tag else network
    known = {one: Accuracy(top1, one, "the table that was given") for one, top1 in results.items() if one.partition(".")[0] == network}
    for one, (top1, source) in PUBLISHED.items():
        if one.partition(".")[0] == network:
            known.setdefault(one, Accuracy(top1, one, source))
    for url, (model, weights, top1, count) in _of_torchvision().items():
        if card and card.url == url:
            known.setdefault(full, Accuracy(top1, full, "torchvision"))
        elif model == network and count == parameters:
            known.setdefault(weights, Accuracy(top1, weights, "torchvision"))
    return known.get(full) or max(known.values(), key=lambda one: one.top1, default=None)


def read_results(file: Path) -> dict[str, float]:
    """Top-1 accuracies in percent of a table such as results-imagenet.csv of timm's repository: columns model and top1.

    Raises: ConfigError.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return {row["model"]: float(row["top1"]) for row in csv.DictReader(lines)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigError([Mistake("results", f"{file} is no table with the columns model and top1 ({why}); timm's has both")]) from None


def at_hand(name: str, weights: str = "imagenet") -> str:
    """Where the weights are, in words."""
    if (file := weights_file(weights, name)) is not None:
        return f"file {file}" if file.is_file() else f"no file {file}"
    if words := offline_words(name):
        return f"package {words}"
    card = timm.get_pretrained_cfg(name)
    if card is None or not timm.is_model_pretrained(name):
        return "none"
    if card.hf_hub_id and any(isinstance(try_to_load_from_cache(card.hf_hub_id, file), str) for file in FILES):
        return "in the hub's cache"
    if card.url and (Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(str(card.url)).name).is_file():
        return "in torch's cache"
    return "to download"


@cache
def _of_torchvision() -> dict[str, tuple[str, str, float, int]]:
    """By the address of the weights that torchvision has: its name of the network and of the weights, top-1 accuracy, parameters."""
    from torchvision.models import get_model_weights, list_models

    found = {}
    for model in list_models():
        for one in get_model_weights(model):
            metrics = one.meta.get("_metrics", {}).get("ImageNet-1K", {})
            if "acc@1" in metrics:
                found[one.url] = model, f"torchvision's {one.name}", metrics["acc@1"], one.meta["num_params"]
    return found
