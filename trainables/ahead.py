"""Prefetching: threads prepare items ahead of their use, in order."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(make: Callable[[int], Item], count: int, threads: int, most: int | None = None) -> Generator[Item]:
    """`make(0)` ... `make(count - 1)` in order, prepared by threads while the caller works on earlier ones.

    Args:
        threads: 0 makes each when it is needed.
        most: items that are begun and not yet taken; default: two for each thread.
    """
    if not threads:
        yield from map(make, range(count))
        return
    most = most or 2 * threads
    pool = ThreadPoolExecutor(threads)
    try:
        waiting = deque(pool.submit(make, number) for number in range(min(count, most)))
        for number in range(count):
            item = waiting.popleft().result()
            if number + most < count:
                waiting.append(pool.submit(make, number + most))
            yield item
    finally:
        # The next trial reuses this process: no thread of this one may outlive it.
        pool.shutdown(cancel_futures=True)
