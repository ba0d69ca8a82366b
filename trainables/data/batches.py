"""Batches of one trial: rows of a mapped view, augmented for training, as tensors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import local

import numpy as np
import torch

from trainables.ahead import ahead
from trainables.data.augment import Augment
from trainables.data.edges import with_edges
from trainables.data.images import ImageError
from trainables.data.sampling import Sampler
from trainables.data.training import TrainingImages
from trainables.data.views import OpenView
from trainables.mixing import Fellows
from trainables.seeding import generator, seed_for


@dataclass(frozen=True)
class Batch:
    """Training images as they come from the data; mixing and the model follow on the device."""

    images: torch.Tensor  # (n, height, width, 3) uint8; 4 channels with edges
    targets: tuple[torch.Tensor, ...]  # per head: class ids (n,) int64, or rows (n, classes) float32
    numbers: torch.Tensor  # (n,) float32; NaN where unknown
    unlabelled: tuple[torch.Tensor, torch.Tensor] | None = None  # images without labels as `images`: weakly and strongly augmented
    partners: "Batch | None" = None  # with which the images are mixed, in their order, where the data draw them


@dataclass(frozen=True)
class Pictures:
    """Images as they are read from the views of several sources."""

    views: Sequence[np.ndarray]  # per source (rows, height, width, 3) uint8, mapped
    rows: np.ndarray  # (n,) of each image in the view of its source
    images: TrainingImages
    edges: bool = False  # whether a channel of edges is added

    def _look(self, picked: np.ndarray) -> np.ndarray:
        source, rows = self.images.source[picked], self.rows[picked]
        images = np.empty((len(picked), *self.views[0].shape[1:]), dtype=np.uint8)
        for number in np.unique(source):
            images[source == number] = self.views[number][rows[source == number]]
        return images

    def augmented(self, picked: np.ndarray, augment: Augment | None, seed: int) -> torch.Tensor:
        """Images (n, height, width, channels) uint8 at some positions (n,). Raises: ImageError naming the first that cannot be prepared."""

        def make(positions: np.ndarray) -> np.ndarray:
            images = self._look(positions)
            images = augment(images, seed) if augment else images
            return with_edges(images) if self.edges else images

        try:
            return torch.from_numpy(make(picked))
        except MemoryError:
            # No image's fault.
            raise
        except Exception:
            # What numpy, OpenCV and albumentations raise has no common class, and none says which image it was. The images before
            # it come along, so that it is given the random numbers with which it failed.
            for count, image in enumerate(picked, start=1):
                try:
                    make(picked[:count])
                except Exception as error:
                    what = f"image {self.images.ids[image]} (row {self.rows[image]} of its view) cannot be read or augmented"
                    # On one line: records keep the first line of a reason, and OpenCV's end with a line break.
                    cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    raise ImageError(f"{what} ({cause}). Fix it, or remove it from the data.") from error
            raise


@dataclass(frozen=True)
class Pairs:
    """Images without labels that come with every batch, in two versions."""

    pictures: Pictures
    ratio: int  # images for each labelled one
    make_weak: Callable[[], Augment | None]  # one per thread, as the next
    make_strong: Callable[[], Augment | None]

    def order(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """So many positions: all of them again and again, each time in another order."""
        images = len(self.pictures.images)
        return np.concatenate([rng.permutation(images) for _ in range(-(-count // images))])[:count]


@dataclass(frozen=True)
class TrainBatches:
    """Drawn, augmented batches; the numbers of an epoch depend on seed and epoch alone."""

    views: Sequence[np.ndarray]  # per source (rows, height, width, 3) uint8, mapped
    rows: np.ndarray  # (n,) of each image in the view of its source
    images: TrainingImages
    batch_size: int
    sampler: Sampler
    make_augment: Callable[[], Augment | None]  # one per thread
    seed: int
    threads: int = 0  # that prepare batches ahead; 0 prepares each when asked
    edges: bool = False  # whether a channel of edges is added
    pairs: Pairs | None = None  # images without labels
    partners: float = 0.0  # share of the batches whose images get partners of their class, to be mixed with

    def __len__(self) -> int:
        """Batches an epoch. A last, incomplete batch is left out unless it is the only one."""
        return max(1, self.sampler.size(self.images) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Positions of the images that an epoch shows, in their order."""
        drawn = self.sampler.draw(self.images, generator(self.seed, "order", epoch))
        return drawn[: len(self) * self.batch_size]

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch. Raises: ImageError naming the first image of a batch that cannot be prepared."""
        order = self.order(number)
        fellows = Fellows.of(self.images.targets) if self.partners else None
        state, pairs = local(), self.pairs
        size = pairs.ratio * self.batch_size if pairs else 0
        # A stream of its own, as that of partners: what has no label changes nothing about what has one.
        unlabelled = pairs.order(len(self) * size, generator(self.seed, "unlabelled", number)) if pairs else None

        def prepare(batch: int) -> Batch:
            found = labelled(batch)
            if pairs is None or unlabelled is None:
                return found
            if not hasattr(state, "weak"):
                state.weak, state.strong = pairs.make_weak(), pairs.make_strong()
            picked = unlabelled[batch * size : (batch + 1) * size]
            versions = ((state.weak, "weak"), (state.strong, "strong"))
            weak, strong = (pairs.pictures.augmented(picked, how, seed_for(self.seed, word, number, batch)) for how, word in versions)
            return replace(found, unlabelled=(weak, strong))

        def labelled(batch: int) -> Batch:
            if not hasattr(state, "augment"):
                state.augment = self.make_augment()
            picked = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            found = self._batch(picked, state.augment, seed_for(self.seed, "augment", number, batch))
            if fellows is None:
                return found
            # A stream of its own: who is mixed with whom changes neither the order nor the augmentations.
            rng = generator(self.seed, "partner", number, batch)
            if rng.random() >= self.partners:
                return found
            others = fellows.draw(picked, rng)
            return replace(found, partners=self._batch(others, state.augment, seed_for(self.seed, "partner augment", number, batch)))

        return ahead(prepare, len(self), self.threads)

    def _batch(self, picked: np.ndarray, augment: Augment | None, seed: int) -> Batch:
        images = Pictures(self.views, self.rows, self.images, self.edges).augmented(picked, augment, seed)
        targets = tuple(torch.from_numpy(target[picked]) for target in self.images.targets)
        return Batch(images, targets, torch.from_numpy(self.images.numbers[picked]))


def rows_of(images: TrainingImages, views: Sequence[OpenView]) -> np.ndarray:
    """The row (n,) of each image in the view of its source."""
    rows = np.zeros(len(images), dtype=np.int64)
    for number, view in enumerate(views):
        own = images.source == number
        rows[own] = view.rows(images.ids[own])
    return rows


def plain_batches(view: np.ndarray, rows: np.ndarray, batch_size: int, threads: int = 0, edges: bool = False) -> Iterator[torch.Tensor]:
    """The given rows of a view, in order: images (n, height, width, 3) uint8, 4 channels with edges.

    The evaluation transform is the view.
    """
    starts = range(0, len(rows), batch_size)

    def look(batch: int) -> torch.Tensor:
        images = view[rows[starts[batch] : starts[batch] + batch_size]]
        return torch.from_numpy(with_edges(images) if edges else images)

    return ahead(look, len(starts), threads)
