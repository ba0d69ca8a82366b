"""Networks whose weights are the mean of several trials', and by which recipe these ingredients are chosen."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from analysis.members.trials import Sample, Trial
from trainables.checkpoint import load_model
from trainables.data.batches import plain_batches
from trainables.loop import choose_precision, mixed_precision, predict
from trainables.metrics import Metric
from trainables.models.assemble import Classifier, to_input
from trainables.storage import local_file


@dataclass(frozen=True, eq=False)
class Soup:
    """One network whose weights are the mean of its ingredients'; of one ingredient it is that trial's own."""

    ingredients: tuple[Trial, ...]  # best first
    tensors: Mapping[str, Tensor]  # on the CPU
    heads: list[np.ndarray]  # validation probabilities (n, classes) float32 per head
    answer: np.ndarray  # joint ones (n, classes of the task's scheme), float64
    score: float  # by the run's metric, on validation


MakeSoup = Callable[[Sequence[Trial]], Soup]


def mean_tensors(files: Sequence[Path]) -> tuple[dict[str, Tensor], set[str]]:
    """The mean of each tensor over files of weights, in double precision and back, and the names of those that differ.

    Integers, such as BatchNorm's count of batches, have no mean: the first file's are taken.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        means, differing = {}, set()
        for name in readers[0].keys():  # noqa: SIM118 - safe_open is no mapping
            first, *others = (reader.get_tensor(name) for reader in readers)
            if not all(torch.equal(first, other) for other in others):
                differing.add(name)
            mean = sum((other.double() for other in others), first.double()) / len(files)
            means[name] = mean.to(first.dtype) if first.is_floating_point() else first
    return means, differing


@torch.no_grad()
def measure_statistics(
    model: Classifier, layers: Sequence[_BatchNorm], batches: Iterable[Tensor], device: torch.device, precision: torch.dtype
):
    """Give BatchNorm layers the mean and variance of what reaches them, each the plain mean over batches.

    All other layers stay as they are at inference: what dropout does to its inputs is not what the layers will see.

    Args:
        batches: images (n, height, width, channels) uint8.
    """
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        # Not a moving average: every batch counts alike.
        layer.momentum = None
        layer.train()
    for batch in batches:
        with mixed_precision(device, precision):
            model(to_input(batch, device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


@contextmanager
def soup_maker(
    group: Sequence[Trial], view: np.ndarray, train: np.ndarray, valid: np.ndarray, sample: Sample, metric: Metric, device: torch.device
) -> Iterator[MakeSoup]:
    """Makes soups of similar trials.

    BatchNorm layers of a soup are given statistics of its own, measured on training images without augmentation. Those that are
    equal in all ingredients were frozen, and stay; so a soup of one trial, or of copies of it, is that trial bitwise.

    Args:
        group: the first one's settings build the network.
        view: (rows, height, width, 3) uint8.
        train: rows (m,) to measure by, in an order that says nothing about the images.
        valid: rows (n,) of the sample's images.
    """
    with ExitStack() as stack:
        files = {trial: stack.enter_context(local_file(trial.models[0])) for trial in group}
        model, card = load_model(files[group[0]], device)
        settings, edges = card.config.train, card.config.model.sees_edges
        precision, size = choose_precision(settings.precision, device), max(64, settings.batch_size)
        # Batches of one size, since each counts alike.
        whole = train[: max(1, len(train) // size) * size]

        def make_soup(ingredients: Sequence[Trial]) -> Soup:
            tensors, differing = mean_tensors([files[trial] for trial in ingredients])
            model.load_state_dict(tensors)
            layers = [
                layer
                for name, layer in model.named_modules()
                if isinstance(layer, _BatchNorm) and {f"{name}.running_mean", f"{name}.running_var"} & differing
            ]
            if layers:
                measure_statistics(model, layers, plain_batches(view, whole, size, threads=2, edges=edges), device, precision)
            # The batches of the training loop's validation, so that a single trial gets its own score again.
            heads = predict(model, plain_batches(view, valid, size, threads=2, edges=edges), device, precision)
            answer = card.task.answer(heads, card.kind)
            averaged = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            return Soup(tuple(ingredients), averaged, heads, answer, sample.score(metric, card.task.scheme.of_kind(card.kind), answer))

        yield make_soup


def uniform(ranked: Sequence[Trial], single: Soup, make_soup: MakeSoup, top: int, metric: Metric) -> Soup:
    """The mean of the `top` best trials."""
    return make_soup(ranked[:top])


def greedy(ranked: Sequence[Trial], single: Soup, make_soup: MakeSoup, top: int, metric: Metric) -> Soup:
    """All trials are tried, best first; one stays when the validation score is not worse with it."""
    soup = single
    for trial in ranked[1:]:
        tried = make_soup((*soup.ingredients, trial))
        soup = tried if metric.sign * tried.score >= metric.sign * soup.score else soup
    return soup


# Each makes a soup of ranked trials, of which `single` is the first one's; greedy is never below that.
RECIPES: dict[str, Callable[[Sequence[Trial], Soup, MakeSoup, int, Metric], Soup]] = {"greedy": greedy, "uniform": uniform}
