"""Decoding in the background: in threads of this process, or in worker processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


def threaded_map(function: Callable, items: Iterable, num_threads: int) -> Iterator:
    """`map(function, items)`, in order, with calls in threads and at most four calls per thread in advance."""
    if num_threads < 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        pending = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def in_workers(batches: Callable[[int, int], Iterator], num_workers: int) -> Iterator[Any]:
    """The batches of `batches(0, 1)`, computed by worker processes: worker w of W runs `batches(w, W)`, every W-th."""
    if num_workers == 0:
        return batches(0, 1)
    # Without its own generator, DataLoader would draw the seeds of its workers (not used here) from the global one.
    return iter(DataLoader(_Feed(batches), batch_size=None, num_workers=num_workers, generator=torch.Generator()))


class _Feed(IterableDataset):
    def __init__(self, batches: Callable[[int, int], Iterator]):
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self.batches(worker.id, worker.num_workers)
