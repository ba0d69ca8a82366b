"""Heads: from the backbone's features to the logits of each group of targets, and to a number where one is predicted."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.targets import Kind, Scheme, Task
from trainables.losses import CosineHeadSettings
from trainables.losses.ordinal import ordinal_head
from trainables.models.cuts import Cuts, log_bands
from trainables.models.settings import POOLS, ModelConfig


class Answer(NamedTuple):
    """What a classifier says of n images."""

    logits: list[Tensor]  # (n, columns) per head; of a number that itself
    number: Tensor | None = None  # (n,) float32: the predicted number, where the loss has a regression part


def vectors(features: Tensor) -> Tensor:
    """One vector an image (n, features) of what heads get, which may be one for each position (n, positions, features): their mean."""
    return features.mean(dim=1) if features.ndim == 3 else features


class Heads(nn.Module):
    """Features (n, features), or of each position (n, positions, features), to an Answer.

    Source: Inoue, Multi-Sample Dropout for Accelerated Training and Better Generalization, 2019.
    """

    def __init__(
        self,
        trunk: nn.Module,
        layers: list[nn.Module],
        number: nn.Module | None = None,
        dropout: float = 0.0,
        samples: int = 1,
        kinds: Sequence[Kind] = (),
    ):
        """
        Args:
            trunk: what the features go through first, for all heads alike.
            layers: trunk's features to logits (n, columns), one per head; Cuts take the number in place of the features.
            number: trunk's features to a number (n,); needed where there are Cuts.
            samples: dropout masks whose logits and numbers are averaged in training.
            kinds: of target, one per head; empty: Classes all.
        """
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.samples = samples
        self.layers = nn.ModuleList(layers)
        self.kinds: tuple[Kind, ...] = tuple(kinds) or ("classes",) * len(layers)
        self.number = number

    @property
    def cuts(self) -> Cuts | None:
        """What makes classes of the number, where one head does."""
        return next((layer for layer in self.layers if isinstance(layer, Cuts)), None)

    def forward(self, features: Tensor) -> Answer:
        features = self.trunk(features)
        masked = [self.dropout(features) for _ in range(self.samples if self.training else 1)]

        def mean(layer: nn.Module) -> Tensor:
            first, *others = (layer(one) for one in masked)
            return sum(others, start=first) / len(masked)

        number = None if self.number is None else mean(self.number)

        def logits(layer: nn.Module) -> Tensor:
            if number is None or not isinstance(layer, Cuts):
                return mean(layer)
            # The number learns by its own distance alone. A heat map asks what the class depends on.
            return layer(number.detach() if self.training else number)

        return Answer([logits(layer) for layer in self.layers], number)


class Cosine(nn.Module):
    """Features (n, features) to `scale` times the cosine between them and a vector of each class, (n, classes) float32."""

    def __init__(self, features: int, classes: int, scale: float):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        # In 16 bits, cosines near 1 would be equal.
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(features.float()), F.normalize(self.weight))


class UnitProjection(nn.Module):
    """Features (n, features) to those whose projection has length 1, float32; linear heads of them give cosines to embeddings of texts.

    In place of the projection it holds a triangular root of projection^T projection, which gives the same length and is as wide as the
    features, so that a classifier is built without knowing how wide the projection was.
    """

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("root", torch.eye(features))

    def project_by(self, projection: Tensor) -> None:
        """Take the length of a projection (embedding, features) from now on."""
        _, root = torch.linalg.qr(projection.double(), mode="r")
        self.root.zero_()[: len(root)] = root.float()

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return features / F.linear(features, self.root).norm(dim=1, keepdim=True).clamp_min(1e-12)


class Ordinal(nn.Module):
    """Features (n, features) to logits (n, classes) float32 of classes that have an order.

    One weight vector gives a score; P(y > k) is the sigmoid of the score less the k-th threshold, and thresholds ascend, since
    their distances are positive by construction. Logits are log-probabilities.

    Source: Cao, Mirjalili and Raschka, Rank Consistent Ordinal Regression for Neural Networks with Application to Age
        Estimation, Pattern Recognition Letters 2020.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.score = nn.Linear(features, 1, bias=False)
        # Thresholds begin one apart, around 0.
        self.first = nn.Parameter(torch.tensor([-(classes - 2) / 2]))
        self.distances = nn.Parameter(torch.full((classes - 2,), math.log(math.e - 1)))

    def thresholds(self) -> Tensor:
        """The scores (classes - 1,) at which the next class becomes as likely as not."""
        return torch.cat([self.first, self.first + self._distances().cumsum(0)])

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return log_bands(F.linear(features.float(), self.score.weight) - self.thresholds(), self._distances())

    def _distances(self) -> Tensor:
        # Never 0, where two thresholds would meet and the class between them have a probability of 0.
        return F.softplus(self.distances) + 1e-3


class Number(nn.Module):
    """Features (n, features), or their mean over positions, to a number (n,) float32, such as years: mean + std * a linear function."""

    def __init__(self, features: int, mean: float, std: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.layer = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.mean + self.std * self.layer(vectors(features)).squeeze(1).float()


class NumberHead(nn.Module):
    """Features (n, features) to a number (n, 1) float32: the head of a Number."""

    def __init__(self, features: int, mean: float, std: float):
        super().__init__()
        self.number = Number(features, mean, std)

    def forward(self, features: Tensor) -> Tensor:
        return self.number(features)[:, None]


def build_heads(config: TrialConfig, features: int, task: Task, numbers: tuple[float, float]) -> Heads:
    """The heads that the sections `model`, `pool` and `loss` ask for.

    Args:
        numbers: mean and standard deviation of what a Number, or the regression part, predicts.
    """
    trunk, features = _trunk(config.model, features)
    layers = [
        NumberHead(features, *numbers) if scheme.kind == "number" else _layer(config, features, scheme, numbers[1])
        for scheme in task.head_schemes
    ]
    number = Number(features, *numbers) if config.loss.regression else None
    dropout = config.model.dropout
    return Heads(
        trunk, layers, number, dropout, config.model.dropout_samples if dropout else 1, [scheme.kind for scheme in task.head_schemes]
    )


def _trunk(config: ModelConfig, features: int) -> tuple[nn.Module, int]:
    if config.is_zero_shot:
        return UnitProjection(features), features
    found: list[nn.Module] = [nn.BatchNorm1d(features)] if config.neck == "batchnorm" else []
    if config.hidden:
        found += [nn.Linear(features, config.hidden), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.hidden, config.hidden)]
        found.append(nn.ReLU())
    return nn.Sequential(*found), config.hidden or features


def _layer(config: TrialConfig, features: int, scheme: Scheme, std: float) -> nn.Module:
    loss, head = config.loss, POOLS[config.pool.name].head
    if head is not None:
        return head(config.pool, features, scheme.classes)
    if loss.ordinal != "none" and ordinal_head(scheme):
        return Ordinal(features, scheme.classes) if loss.ordinal == "coral" else Cuts(scheme.targets[0].cuts, std)
    if isinstance(loss, CosineHeadSettings) and scheme.kind == "classes":
        return Cosine(features, scheme.classes, loss.scale)
    return nn.Linear(features, scheme.classes)
