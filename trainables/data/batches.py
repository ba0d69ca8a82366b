"""Batches of one trial: rows of a mapped view, augmented for training, as tensors."""

from collections import deque
from collections.abc import Callable, Iterator
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


@dataclass(frozen=True)
class TrainBatches:
    """Shuffled, augmented batches; the numbers of an epoch depend on seed and epoch alone."""

    view: np.ndarray  # (rows, height, width, 3) uint8, mapped
    rows: np.ndarray  # (n,) the training photos' rows
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
        """The batches of one epoch."""
        order = self.sampler(self.classes, generator(self.seed, "order", number))
        chosen = [order[start * self.batch_size : (start + 1) * self.batch_size] for start in range(len(self))]
        state = local()

        def prepare(batch: int) -> Batch:
            if not hasattr(state, "augment"):
                state.augment = self.make_augment()
            picked = chosen[batch]
            images = self.view[self.rows[picked]]
            if state.augment:
                images = state.augment(images, seed_for(self.seed, "augment", number, batch))
            return torch.from_numpy(images), torch.from_numpy(self.targets[picked])

        return ahead(prepare, len(self), self.threads)


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
