"""The order of the data, and batches read ahead by threads.

An epoch's order and what of it is mirrored follow from the seed, the epoch and the place in it, and
from nothing else: whoever goes on at a step gets the same batches.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch

from marfast.errors import ArgumentError
from marfast.training.data import Batch, Data, Unreadable, stack
from marfast.training.settings import TrainSettings

AHEAD = 2  # batches that a thread reads ahead
POOL = 16  # batches whose sequences are sorted by length together

_ORDER, _FLIPS = 0, 1  # streams of a seed


class Batches:
    """The batches of a run, of which this process reads its parts.

    parts: those of each batch that it reads, in order.
    """

    def __init__(self, data: Data, settings: TrainSettings, parts: range, workers: int):
        self.data, self.settings, self.parts, self.workers = data, settings, parts, workers
        if settings.batch > len(data):
            allowed = f"allowed are up to {len(data)}, the items of the data set"
            raise ArgumentError("batch", settings.batch, allowed)
        self.per_epoch = len(data) // settings.batch
        """Batches; what is left over at an epoch's end is left out of it."""
        self.unreadable: dict[str, str] = {}
        """Files that were left out, and why."""
        self._lock = Lock()

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The items of an epoch [batches, batch]: each at most once."""
        random = np.random.default_rng([self.settings.seed, _ORDER, epoch])
        order = random.permutation(len(self.data))
        size, lengths = self.settings.batch, self.data.lengths
        if lengths is not None:  # alike ones side by side: fewer different lengths in a batch
            pools = [order[i : i + POOL * size] for i in range(0, len(order), POOL * size)]
            order = np.concatenate([p[np.argsort(lengths[p], kind="stable")] for p in pools])
            first = int(random.integers(len(order) % size + 1))  # others are left out each time
            order = order[first:]
        order = order[: self.per_epoch * size].reshape(self.per_epoch, size)
        return order if lengths is None else random.permutation(order)

    def from_step(self, step: int) -> Generator[list[Batch], None, None]:
        """This process's parts of each batch, from a step of the run on, without an end."""
        pool = ThreadPoolExecutor(self.workers, "marfast-data")
        waiting: deque[list[Future[Batch]]] = deque()
        order = self.order(step // self.per_epoch)
        try:
            while True:
                while len(waiting) * len(self.parts) < AHEAD * self.workers or not waiting:
                    epoch, place = divmod(step, self.per_epoch)
                    if place == 0:
                        order = self.order(epoch)
                    items = order[place].reshape(self.settings.parts or 1, -1)
                    waiting.append(
                        [pool.submit(self._read, items[p], (epoch, place, p)) for p in self.parts]
                    )
                    step += 1
                yield [part.result() for part in waiting.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, indices: npt.NDArray[np.int64], where: tuple[int, int, int]) -> Batch:
        random = np.random.default_rng([self.settings.seed, _FLIPS, *where])
        flips = (random.random(len(indices)) < 0.5) & self.settings.flip
        read = [self._item(int(i), bool(f)) for i, f in zip(indices, flips, strict=True)]
        items, found = zip(*read, strict=True)
        kept = [*found]
        lengths = self.data.lengths
        return Batch(
            stack([*items]),
            torch.from_numpy(self.data.labels[kept]),
            None if lengths is None else torch.from_numpy(lengths[kept]),
        )

    def _item(self, index: int, flip: bool) -> tuple[npt.NDArray[np.float32], int]:
        """An item, or the next one that can be read; and which it is."""
        count = len(self.data)
        for found in (*range(index, count), *range(index)):
            try:
                return self.data.read(found, flip), found
            except Unreadable as error:
                with self._lock:
                    self.unreadable.setdefault(error.path, error.why)
                why = error
        raise ArgumentError("data", f"none of {count} files can be read, as {why.path}: {why.why}")
