"""A batch part by part: the tokens of each, and the images made of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from marfast.checkpoints import Settings
from marfast.generation import randomness
from marfast.generation.batch import Batch
from marfast.generation.generated import Generated
from marfast.generation.loaded import Loaded
from marfast.generation.progress import Progress, Step, reporting
from marfast.generation.provenance import Making
from marfast.generation.randomness import randomness_of_parts
from marfast.generation.sample import sample_tokens
from marfast.generation.schedules import schedules_of
from marfast.generation.start import Start


def parts_of(images: int, size: int) -> list[range]:
    """So many images at a time."""
    return [range(first, min(first + size, images)) for first in range(0, images, size)]


def sample_parts(
    loaded: Loaded,
    labels: Tensor,
    seed: randomness.Seed | Sequence[randomness.Seed],
    parts: Sequence[range],
    settings: Settings,
    progress: Progress | None = None,
    making: Making | None = None,
    start: Start | None = None,
    watch: Callable[[range, int, Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """Tokens [images, L, C] of each part of a batch with labels [B], in turn; of a `start`, the
    whole batch's. `watch` is told of a part after each iteration, and of its tokens."""
    schedules = schedules_of(loaded.model, settings)
    random_parts = randomness_of_parts(seed, len(labels), parts, loaded.model.device)
    for rows, of_part in zip(parts, random_parts, strict=True):
        part = slice(rows.start, rows.stop)
        known = None if start is None else start[part]
        seen = None if watch is None else partial(watch, rows)
        with torch.no_grad(), making.watched() if making else nullcontext():
            tokens = sample_tokens(
                loaded.model, labels[part], of_part, settings, schedules, progress, known, seen
            )
        yield tokens


def image_parts(
    loaded: Loaded,
    batch: Batch,
    wanted: range,
    progress: bool | Progress | None,
    callback: Callable[[Step], None] | None,
) -> Iterator[Generated]:
    """The wanted images of a batch, computed in the parts that they are in for the whole batch, so
    to the same bits."""
    settings, making = batch.settings, batch.making
    every = parts_of(len(batch.labels), batch.part)
    parts = [p for p in every if max(p.start, wanted.start) < min(p.stop, wanted.stop)]
    finished, total = 0, len(parts) * settings.num_iter

    with reporting(progress, total) as report:

        def told(done: int, of: int) -> None:
            nonlocal finished
            finished += 1
            report(finished, total)

        def step(images: range, done: int, tokens: Tensor) -> None:
            assert callback is not None
            callback(Step(done, settings.num_iter, images, tokens.clone(), loaded.images_of))

        watch = None if callback is None else step
        sampled = sample_parts(
            loaded, batch.labels, batch.seed, parts, settings, told, making, watch=watch
        )
        for part, tokens in zip(parts, sampled, strict=True):
            with making.watched():
                images = loaded.images_of(tokens)
            made = Generated.of(images, making, part.start, loaded.makes_images)
            yield made.within(wanted)
