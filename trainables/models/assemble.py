"""A whole classifier: normalisation, backbone, heads."""

import torch
from torch import nn

from trainables.config import TrialConfig
from trainables.data.targets import Task
from trainables.data.training import ChannelStatistics
from trainables.models.backbone import build_backbone
from trainables.models.edges import MixEdges
from trainables.models.freezing import Freeze, build_freeze
from trainables.models.heads import Answer, Heads, build_heads
from trainables.models.pooling import build_pool
from trainables.seeding import seed_for

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # channel means and standard deviations, on the scale 0 to 1


class Classifier(nn.Module):
    """Images (n, channels, height, width), float of 0 to 255, to an Answer.

    Normalisation is part of the model, so it cannot be forgotten or differ at inference.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Heads,
        statistics: ChannelStatistics,
        edges: nn.Module | None = None,
        freeze: Freeze = Freeze(),
        pool: nn.Module | None = None,
    ):
        """
        Args:
            edges: what brings normalised images to the channels that the backbone takes; None: nothing has to.
            freeze: which parameters of the backbone keep their weights, and how long.
            pool: from what the backbone gives to what the heads get; None: that is the same.
        """
        super().__init__()
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in statistics)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.edges = edges or nn.Identity()
        self.backbone = backbone
        self.pool = pool or nn.Identity()
        self.heads = heads
        self.freeze = freeze

    def forward(self, images: torch.Tensor) -> Answer:
        return self.heads(self.features(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the heads get: (n, features), or (n, positions, features) where they attend to positions themselves (see `vectors`)."""
        return self.pool(self.backbone(self.edges((images - self.mean) / self.std)))

    def begin_epoch(self, epoch: int) -> None:
        """Make ready to train the epoch with this number, the first being 1: modes, and which parameters take gradients."""
        self.train()
        self.freeze.begin_epoch(self.backbone, epoch)


def build_model(config: TrialConfig, task: Task, statistics: ChannelStatistics, numbers: tuple[float, float] = (0.0, 1.0)) -> Classifier:
    """The classifier with its first weights, which depend on the seed alone.

    Parameters that never train have no `requires_grad`; those that are thawed after some epochs have it until the first begins.

    Args:
        statistics: of the three colours.
        numbers: mean and standard deviation of what the regression part predicts.
    Raises: ConfigError, see `build_backbone`, `build_pool` and `build_freeze`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "weights"))
        backbone, features = build_backbone(config.model, (config.view.height, config.view.width))
        pool = build_pool(config, backbone, features)
        heads = build_heads(config, features, task, numbers)
        edges = MixEdges() if config.model.edges == "mix" else None
    if config.model.edges != "none":
        # Edges are 0 or 255 already: 0 or 1 on the scale of the statistics.
        mean, std = statistics
        statistics = (*mean, 0.0), (*std, 1.0)
    model = Classifier(backbone, heads, statistics, edges, build_freeze(config.model, backbone), pool)
    # Channels last nearly doubles a step on CPUs and is the fast layout of mixed precision on GPUs.
    return model.to(memory_format=torch.channels_last) if config.train.channels_last else model


def to_input(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch (n, height, width, channels) uint8 as the model takes it: (n, channels, height, width) float32, channels last in memory."""
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
