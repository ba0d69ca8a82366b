"""Monte Carlo dropout: predictions by networks some of whose units are left out, which are averaged; among `looks` in ensemble.json.

A pass leaves the same units out for every image, drawn by its number alone. So what an image gets depends on no other image, not on the
size of batches and not on the device, and passes agree to the bit where predictions do. Only dropout is active: BatchNorm and all else
stay as in any prediction, and so do the blocks that stochastic depth leaves out in training.

Sources: Gal and Ghahramani, Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning, ICML 2016; one mask for
all images: Kirsch, van Amersfoort and Gal, BatchBALD, NeurIPS 2019.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from trainables.data.targets import Kind
from trainables.seeding import seed_for

if TYPE_CHECKING:
    from torch import Tensor, nn

SPREAD: dict[Kind, str] = {
    "classes": "mutual information of passes",
    "tags": "mutual information of passes",
    "number": "deviation of passes",
}


def passes(count: int) -> tuple[str, ...]:
    """The names of so many passes, as they stand beside those of transforms."""
    return tuple(f"dropout {number}" for number in range(1, count + 1))


def pass_number(look: str) -> int:
    """The number of a pass by its name, from 1 on; 0: it is none."""
    found = re.fullmatch(r"dropout ([1-9]\d*)", look)
    return int(found[1]) if found else 0


def has_passes(looks: Sequence[str]) -> bool:
    """Whether some of these are passes of Monte Carlo dropout."""
    return any(map(pass_number, looks))


def dropout_layers(model: "nn.Module") -> dict[str, "nn.Module"]:
    """The layers that leave units, or whole channels, out with a probability above 0, by name."""
    from torch import nn

    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds) and layer.p > 0}


@contextmanager
def dropping(model: "nn.Module", number: int) -> Iterator[None]:
    """Within the block a model in eval mode leaves out what the pass with this number does; 0: nothing."""
    hooks = [layer.register_forward_hook(_masking(name, number)) for name, layer in dropout_layers(model).items()] if number else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _masking(name: str, number: int):
    """A hook after a layer of this name, which in eval mode passes on what it got."""
    seed = seed_for(number, "Monte Carlo dropout", name)

    def thin(layer: "nn.Module", given: object, output: "Tensor") -> "Tensor":
        return output * keep(layer, output.shape, seed).to(output)

    return thin


def keep(layer: "nn.Module", shape: Sequence[int], seed: int) -> "Tensor":
    """A mask for values (n, ...), the same for all n: 0 for what is left out, else 1 / (1 - p), float32 on the CPU."""
    import torch

    whole = [] if isinstance(layer, torch.nn.Dropout) else [1] * (len(shape) - 2)
    one = (1, shape[1], *whole) if len(whole) else (1, *shape[1:])
    # pyrefly: ignore[bad-assignment]  p is a number, which torch annotates as any attribute of a module
    left: float = layer.p
    drawn = torch.rand(one, generator=torch.Generator().manual_seed(seed))
    return (drawn >= left) / (1 - left)


def spread(answers: np.ndarray, kind: Kind) -> np.ndarray:
    """How far the answers of passes (passes, n, columns) are from one another, (n,).

    Of classes, in nats: the entropy of their mean less the mean of their entropies, which is what a label would tell of the network
    (BALD; Houlsby et al., Bayesian Active Learning for Classification and Preference Learning, 2011). Of tags that of each, added up. Of a
    number their standard deviation.
    """
    if kind == "number":
        return answers[..., 0].std(axis=0)
    if kind == "tags":
        answers = np.stack([answers, 1 - answers], axis=-1)
    within = _entropy(answers).mean(axis=0)
    found = _entropy(answers.mean(axis=0)) - within
    return np.maximum(found.sum(axis=-1) if kind == "tags" else found, 0)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return -(probabilities * logs).sum(axis=-1)
