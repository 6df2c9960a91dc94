"""Latents of a folder of images, in files as LTH14/mar's main_cache.py writes them: training reads
them instead of encoding each image in each epoch."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.evaluation.work import Place
from marfast.files import replacing, sweep
from marfast.model.autoencoder import KLTokenizer
from marfast.training.data import Floats, Unreadable
from marfast.training.folders import FLIPPED, MOMENTS, PICTURES, Files, Pictures

Progress = Callable[[int, int], None]
"""Called with (done, of) images of this process."""


@dataclass(frozen=True)
class Cache:
    """What a call has done."""

    made: int
    there: int
    """Files that were there before."""
    unreadable: dict[str, str]
    """Images that were left out, and why."""


def cache(
    images: str | Path,
    tokenizer: KLTokenizer,
    out: str | Path,
    *,
    side: int = 256,
    batch: int = 16,
    workers: int = 4,
    device: torch.device | str = "cpu",
    place: Place | None = None,
    progress: Progress | None = None,
) -> Cache:
    """Write `out/<class>/<image file>.npz` for each image of a folder: means, then log variances,
    float32 [2C, h, w], `moments` of the image and `moments_flip` of its mirror image.

    side: of the squares that images are cut to; a multiple of the tokenizer's stride.
    place: this process among several, each of which makes its share; None asks the environment.

    A file is there whole or not at all, and files that are there stay: the same call goes on.
    Raises ArgumentError before any work; OSError where a file can't be written.
    """
    place = place or Place.here()
    if side < tokenizer.stride or side % tokenizer.stride:
        allowed = f"allowed are multiples of {tokenizer.stride}, the tokenizer's stride"
        raise ArgumentError("side", side, allowed)
    root, target = Path(images), Path(out)
    if not root.is_dir():
        raise ArgumentError("images", f"{root} is not a folder")
    files = Files.under(root, PICTURES, "images")
    pictures = Pictures(files, side, 3, None)
    targets = [target / f"{path.relative_to(root)}.npz" for path in files.paths]
    mine = range(place.rank, len(targets), place.ranks)
    missing = [i for i in mine if not targets[i].exists()]
    there, made = len(mine) - len(missing), 0
    unreadable: dict[str, str] = {}
    tokenizer.to(device)
    for read in _ahead(pictures, missing, batch, workers):
        found = {i: item for i, item in read.items() if not isinstance(item, Unreadable)}
        unreadable |= {e.path: e.why for e in read.values() if isinstance(e, Unreadable)}
        if found:
            moments = _moments(tokenizer, torch.from_numpy(np.stack([*found.values()])).to(device))
            for i, straight, flipped in zip(found, *moments, strict=True):
                with replacing(targets[i]) as new, new.open("wb") as file:
                    np.savez(file, **{MOMENTS: straight, FLIPPED: flipped})
            made += len(found)
        if progress:
            progress(there + made + len(unreadable), len(mine))
    for folder in {path.parent for path in targets}:
        if folder.is_dir():
            sweep(folder)
    return Cache(made, there, unreadable)


def _ahead(
    pictures: Pictures, indices: Sequence[int], batch: int, workers: int
) -> Iterator[dict[int, Floats | Unreadable]]:
    """Images by index, or why there is none, a batch at a time; the next one is being read."""

    def read(index: int) -> Floats | Unreadable:
        try:
            return pictures.read(index, False)
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(workers, "marfast-cache") as pool:
        waiting: deque[dict[int, Future[Floats | Unreadable]]] = deque()
        try:
            for first in range(0, len(indices), batch):
                chunk = indices[first : first + batch]
                waiting.append({index: pool.submit(read, index) for index in chunk})
                if len(waiting) > 1:
                    yield {i: future.result() for i, future in waiting.popleft().items()}
            for last in waiting:
                yield {i: future.result() for i, future in last.items()}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _moments(tokenizer: KLTokenizer, images: Tensor) -> tuple[Floats, Floats]:
    """Of images [B, 3, H, W], and of their mirror images."""
    straight, flipped = (
        tokenizer.moments(given).cpu().numpy() for given in (images, images.flip(3))
    )
    return straight, flipped
