"""A whole classifier: normalisation, backbone, heads."""

import torch
from torch import nn

from trainables.config import ModelConfig
from trainables.data.labels import Task
from trainables.models.backbone import build_backbone
from trainables.models.heads import Heads
from trainables.seeding import seed_for

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # channel means and standard deviations, on the scale 0 to 1

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Classifier(nn.Module):
    """Photos (n, 3, height, width), float of 0 to 255, to a list of logits, (n, classes) per head.

    Normalisation is part of the model, so nobody can forget it or use another one at inference.
    """

    def __init__(self, backbone: nn.Module, heads: Heads, statistics: Statistics):
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in statistics)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.backbone = backbone
        self.heads = heads

    def forward(self, photos: torch.Tensor) -> list[torch.Tensor]:
        return self.heads(self.backbone((photos - self.mean) / self.std))


def build_model(config: ModelConfig, task: Task, size: tuple[int, int], statistics: Statistics, seed: int) -> Classifier:
    """The classifier with its first weights, which depend on the seed alone. Raises: ConfigError, see `build_backbone`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "weights"))
        backbone, features = build_backbone(config, size)
        heads = Heads(features, [scheme.classes for scheme in task.head_schemes], config.dropout)
    # Channels last nearly doubles a step on CPUs and is the fast layout of mixed precision on GPUs.
    return Classifier(backbone, heads, statistics).to(memory_format=torch.channels_last)


def to_input(photos: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch (n, height, width, 3) uint8 as the model takes it: (n, 3, height, width) float32, channels last in memory."""
    return photos.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
