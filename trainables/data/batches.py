"""Batches of one trial: rows of a mapped view, augmented for training, as tensors."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from typing import TypeVar

import numpy as np
import torch

from trainables.data.augment import Augment
from trainables.data.sampling import Sampler
from trainables.seeding import generator, seed_for

Item = TypeVar("Item")
Batch = tuple[torch.Tensor, torch.Tensor]  # images (n, height, width, 3) uint8, class ids (n, heads) int64


class PhotoError(ValueError):
    """A photo that cannot be read from its view or augmented; the text says which, where and why."""


@dataclass(frozen=True)
class TrainBatches:
    """Shuffled, augmented batches; the numbers of an epoch depend on seed and epoch alone."""

    view: np.ndarray  # (rows, height, width, 3) uint8, mapped
    rows: np.ndarray  # (n,) the training photos' rows
    ids: Sequence[str]  # (n,) their names, for the error that one of them may be
    targets: np.ndarray  # (n, heads) class ids
    classes: np.ndarray  # (n,) class ids of the whole task, for the sampler
    batch_size: int
    sampler: Sampler
    make_augment: Callable[[], Augment | None]  # one per thread
    seed: int
    threads: int = 0  # that prepare batches ahead; 0 prepares each when asked

    def __len__(self) -> int:
        """Batches an epoch. A last, incomplete batch is left out unless it is the only one."""
        return max(1, len(self.rows) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch. Raises: PhotoError naming the first photo of a batch that cannot be prepared."""
        order = self.sampler(self.classes, generator(self.seed, "order", number))
        chosen = [order[start * self.batch_size : (start + 1) * self.batch_size] for start in range(len(self))]
        state = local()

        def prepare(batch: int) -> Batch:
            if not hasattr(state, "augment"):
                state.augment = self.make_augment()
            picked = chosen[batch]
            images = self._images(picked, state.augment, seed_for(self.seed, "augment", number, batch))
            return torch.from_numpy(images), torch.from_numpy(self.targets[picked])

        return ahead(prepare, len(self), self.threads)

    def _images(self, picked: np.ndarray, augment: Augment | None, seed: int) -> np.ndarray:
        def make(photos: np.ndarray) -> np.ndarray:
            images = self.view[self.rows[photos]]
            return augment(images, seed) if augment else images

        try:
            return make(picked)
        except MemoryError:
            # No photo's fault.
            raise
        except Exception:
            # What numpy, OpenCV and albumentations raise has no common class, and none says which photo it was. The photos before
            # it come along, so that it is given the random numbers with which it failed.
            for count, photo in enumerate(picked, start=1):
                try:
                    make(picked[:count])
                except Exception as error:
                    what = f"photo {self.ids[photo]} (row {self.rows[photo]} of its view) cannot be read or augmented"
                    # On one line: records keep the first line of a reason, and OpenCV's end with a line break.
                    cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    raise PhotoError(f"{what} ({cause}). Mend it, or take it out of the data.") from error
            raise


def plain_batches(view: np.ndarray, rows: np.ndarray, batch_size: int, threads: int = 0) -> Iterator[torch.Tensor]:
    """The given rows of a view, in order and unchanged: images (n, height, width, 3) uint8. The evaluation transform is the view."""
    starts = range(0, len(rows), batch_size)
    return ahead(lambda batch: torch.from_numpy(view[rows[starts[batch] : starts[batch] + batch_size]]), len(starts), threads)


def ahead(make: Callable[[int], Item], count: int, threads: int) -> Iterator[Item]:
    """`make(0)` ... `make(count - 1)` in order, prepared by threads while the caller works on earlier ones."""
    if not threads:
        yield from map(make, range(count))
        return
    pool = ThreadPoolExecutor(threads)
    try:
        waiting = deque(pool.submit(make, number) for number in range(min(count, 2 * threads)))
        for number in range(count):
            item = waiting.popleft().result()
            if number + 2 * threads < count:
                waiting.append(pool.submit(make, number + 2 * threads))
            yield item
    finally:
        # The next trial reuses this process: no thread of this one may outlive it.
        pool.shutdown(cancel_futures=True)
