"""Test-time augmentation: other transforms of an image in its view, whose predictions are averaged; `looks` in ensemble.json."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trainables.data.edges import with_edges

if TYPE_CHECKING:
    from torch import Tensor

# Batches (n, height, width, 3) uint8 of a view, or with edges as a fourth channel, to batches of the same shape. Nothing is drawn by
# chance, and a transformed image depends on no other image.
Transform = Callable[["Tensor"], "Tensor"]

STRIP = 0.05  # of the height or width, at either side


def plain(images: "Tensor") -> "Tensor":
    """The view itself."""
    return images


def flip(images: "Tensor") -> "Tensor":
    """The mirror image."""
    return _of_colours(images, lambda colours: colours.flip(2))


def zoom(images: "Tensor") -> "Tensor":
    """The middle of the view, without 5 % at each side, enlarged to its size."""

    def cut(colours: "Tensor") -> "Tensor":
        height, width = colours.shape[1:3]
        top, left = round(STRIP * height), round(STRIP * width)
        return _resized(colours[:, top : height - top, left : width - left], height, width)

    return _of_colours(images, cut)


def wide(images: "Tensor") -> "Tensor":
    """The view and a border of 5 % at each side, which repeats the outermost pixels, both shrunk to the size of the view."""

    from torch.nn.functional import pad

    def frame(colours: "Tensor") -> "Tensor":
        height, width = colours.shape[1:3]
        top, left = round(STRIP * height), round(STRIP * width)
        planes = pad(colours.permute(0, 3, 1, 2).float(), (left, left, top, top), mode="replicate")
        return _resized(planes.permute(0, 2, 3, 1), height, width)

    return _of_colours(images, frame)


TRANSFORMS: dict[str, Transform] = {"plain": plain, "flip": flip, "zoom": zoom, "wide": wide}

# Sets to choose from, cheapest first; each costs as many predictions as it has transforms.
TRANSFORM_SETS: tuple[tuple[str, ...], ...] = (("plain",), ("plain", "flip"), ("plain", "flip", "zoom"), ("plain", "flip", "zoom", "wide"))


def _of_colours(images: "Tensor", change: Callable[["Tensor"], "Tensor"]) -> "Tensor":
    """Changed colours, and their own edges where the batch has edges: those of an image that is resized are not its edges resized."""
    import torch

    changed = change(images[..., :3]).contiguous()
    if images.shape[-1] == 3:
        return changed
    return torch.from_numpy(with_edges(changed.cpu().numpy())).to(images.device)


def _resized(colours: "Tensor", height: int, width: int) -> "Tensor":
    """Images (n, any height, any width, 3) at a size, bilinear; smoothed first where they shrink."""
    import torch
    from torch.nn.functional import interpolate

    planes = colours.permute(0, 3, 1, 2).float()
    resized = interpolate(planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
