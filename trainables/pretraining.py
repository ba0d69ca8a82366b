"""Further pre-training of a backbone on images without labels: patches are masked, and the network learns to reconstruct them.

Masked image modelling after SimMIM (Xie et al., CVPR 2022): the hidden patches are blank at the input and one linear layer turns the
last features into pixels. A ViT's patch projection gives every blank patch the same embedding, its bias, in place of SimMIM's token.
For a CNN the same is a context encoder (Pathak et al., CVPR 2016) without its adversary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.augment import AugmentConfig, build_augment
from trainables.data.batches import TrainBatches
from trainables.data.sampling import SamplerConfig, build_sampler
from trainables.data.training import TrainingImages
from trainables.loop import DivergedError, choose_precision, mixed_precision
from trainables.models.assemble import IMAGENET, ChannelStatistics, to_input
from trainables.models.backbone import build_backbone
from trainables.models.settings import ModelConfig
from trainables.optimizers import OptimizerConfig, build_optimizer
from trainables.registry import ConfigError, Mistake
from trainables.schedules import FloorSettings, build_schedule
from trainables.seeding import generator, seed_for

CELLS = 8  # into which each side of an image is divided for a network without patches of its own
AUGMENT = AugmentConfig(flip=0.5, zoom=0.3)


@dataclass(frozen=True)
class Pretraining:
    """The settings of a pre-training."""

    backbone: str  # any timm name
    weights: str  # initial ones: imagenet, none, or a file
    epochs: int
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    hide: float = 0.6  # share of each image that is hidden
    seed: int = 0


@dataclass(frozen=True)
class PretrainedEpoch:
    """One epoch of pre-training."""

    epoch: int
    loss: float  # mean absolute error of the hidden pixels, in standard deviations of the channels
    seconds: float
    images: int


class Painter(nn.Module):
    """A backbone and one linear layer from its last features back to pixels."""

    def __init__(self, backbone: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            _, channels, rows, columns = last_features(backbone.eval(), torch.zeros(1, 3, *size)).shape
        self.cell = math.ceil(size[0] / rows), math.ceil(size[1] / columns)
        self.to_pixels = nn.Conv2d(channels, 3 * self.cell[0] * self.cell[1], kernel_size=1)
        backbone.train()

    def forward(self, images: Tensor) -> Tensor:
        """Painted images (n, 3, rows * cell height, columns * cell width) for images (n, 3, height, width)."""
        pixels = self.to_pixels(last_features(self.backbone, images))
        n, _, rows, columns = pixels.shape
        high, wide = self.cell
        return pixels.view(n, 3, high, wide, rows, columns).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, rows * high, columns * wide)


def last_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """The features before pooling, (n, channels, rows, columns)."""
    if hasattr(backbone, "forward_intermediates"):
        return backbone.forward_intermediates(images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[-1]
    return backbone.forward_features(images)


def build_painter(settings: Pretraining, size: tuple[int, int]) -> Painter:
    """The network to pre-train. Raises: ConfigError for what `build_backbone` refuses and for networks without a map of features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(settings.seed, "pretrain"))
        backbone, _ = build_backbone(ModelConfig(backbone=settings.backbone, weights=settings.weights), size)
        try:
            return Painter(backbone, size)
        except (ValueError, RuntimeError, AttributeError, TypeError) as error:
            message = f"{settings.backbone} has no feature map from which pixels can be reconstructed ({error}); choose another"
            raise ConfigError([Mistake("model/backbone", message)]) from None


def patch_of(backbone: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels of what is hidden or shown as a whole: the network's own patches, or an eighth of each side."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if patch is not None and min(patch) >= min(size) // (2 * CELLS):
        return tuple(patch)
    height, width = size
    return max(1, height // CELLS), max(1, width // CELLS)


def hide(count: int, size: tuple[int, int], patch: tuple[int, int], share: float, rng: np.random.Generator) -> np.ndarray:
    """Which pixels are hidden, (count, 1, height, width) bool: the same number of whole patches in every image, at least one."""
    rows, columns = (math.ceil(side / part) for side, part in zip(size, patch, strict=True))
    hidden = min(rows * columns - 1, max(1, round(share * rows * columns)))
    order = rng.permuted(np.tile(np.arange(rows * columns), (count, 1)), axis=1)
    cells = (order < hidden).reshape(count, rows, columns)
    return cells.repeat(patch[0], axis=1).repeat(patch[1], axis=2)[:, None, : size[0], : size[1]]


def images_to_paint(found: Sequence[Sequence[str]]) -> TrainingImages:
    """Images without labels, from several sources.

    Args:
        found: names (n,) for each source.
    """
    ids = np.array([name for names in found for name in names], dtype=object)
    return TrainingImages.without_labels(ids, np.repeat(np.arange(len(found)), [len(names) for names in found]))


def batches_to_paint(
    settings: Pretraining, views: Sequence[np.ndarray], rows: np.ndarray, images: TrainingImages, threads: int = 0
) -> TrainBatches:
    """The batches of every epoch: all images, flipped and zoomed at random.

    Args:
        views: per source (rows, height, width, 3) uint8.
        rows: of each image (n,) in the view of its source.
        threads: that prepare batches ahead; 0 for none.
    """
    shuffle = build_sampler(SamplerConfig())
    size = min(settings.batch_size, len(images))
    return TrainBatches(views, rows, images, size, shuffle, partial(build_augment, AUGMENT), settings.seed, threads)


def pretrain(
    painter: Painter, settings: Pretraining, batches: TrainBatches, device: torch.device, statistics: ChannelStatistics = IMAGENET
) -> Iterator[PretrainedEpoch]:
    """Train, yielding after each epoch; the result is `painter.backbone`.

    Args:
        statistics: means and standard deviations of the channels, on the scale 0 to 1, to normalise by as later training will.

    Raises: DivergedError when the loss is not finite, ImageError for an image that cannot be prepared.
    """
    size = batches.views[0].shape[1:3]
    patch = patch_of(painter.backbone, size)
    painter = painter.to(device, memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in statistics)
    optimizer = build_optimizer(OptimizerConfig(lr=settings.lr, weight_decay=settings.weight_decay), painter)
    schedule = build_schedule(FloorSettings(name="cosine", warmup=0.1), settings.lr, len(batches), settings.epochs)
    precision = choose_precision("auto", device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    for epoch in range(1, settings.epochs + 1):
        start, losses = perf_counter(), []
        torch.manual_seed(seed_for(settings.seed, "pretrain dropout", epoch))
        rng = generator(settings.seed, "pretrain hide", epoch)
        painter.train()
        for batch in batches.epoch(epoch):
            images = (to_input(batch.images, device) - mean) / std
            hidden = torch.from_numpy(hide(len(images), size, patch, settings.hide, rng)).to(device)
            with mixed_precision(device, precision):
                painted = painter(images.masked_fill(hidden, 0.0)).float()
            # Networks that round their strides up paint a few pixels more than there are.
            loss = (painted[..., : size[0], : size[1]] - images).abs()[hidden.expand_as(images)].mean()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                place = f"epoch {epoch}, batch {len(losses)} of {len(batches)}"
                raise DivergedError(f"the loss is {losses[-1]} in {place}; give a smaller --lr than {settings.lr:g}")
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr((epoch - 1) * len(batches) + len(losses) - 1)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        yield PretrainedEpoch(epoch, float(np.mean(losses)), perf_counter() - start, len(batches) * batches.batch_size)
