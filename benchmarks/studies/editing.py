"""What edits by the embedded model are worth, and what they cost.

    python -m benchmarks.studies.editing

Accuracy: the lower half of test images is made anew for another class, and the classifier says
which class it sees; what it says of generated images is in quality-against-original.json. Both ways
of counting guidance's linear ramp are tried: by how many of all L tokens are known, which is what
`edit` does, and by how many of its own M are made.

Time: an edit of a quarter of the tokens beside a generation, of fashion-mnist and of MAR-B with
random weights, taking turns in one process; medians. Written to benchmarks/results, as
editing-accuracy.json and editing-time.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import marfast
from benchmarks.studies import RESULTS
from benchmarks.studies.quality.measure import evaluate_images
from marfast.bench.images import random_module
from marfast.bench.results import commit, write_rows
from marfast.checkpoints.presets import MAR_PRESETS
from marfast.generation import Pipeline, loop
from marfast.model import FastMAR
from marfast.training.fashion_mnist import (
    CLASS_NAMES,
    read_fashion_mnist,
    to_model_range,
)

BLOCK = 250  # images made at a time, with a seed of their own
FEW = 250  # edits by which the two ramps are compared
KINDS = (
    ("t-shirt", "pullover", "dress", "coat", "shirt"),
    ("sandal", "sneaker", "ankle boot"),
)
"""Classes of like outlines: half of one can be half of another."""


@contextmanager
def ramp(over: str) -> Iterator[None]:
    """Guidance's linear ramp counted over all tokens, or over those that an edit makes."""
    own = loop.guidance_scale
    unknown: list[int] = []

    def begin(self: Any, *arguments: Any) -> None:
        unknown[:] = [self.unknown]
        fill(self, *arguments)

    def scale(cfg: Any, schedule: str, whole: int, left: int) -> Any:
        return own(cfg, schedule, whole if over == "all tokens" else unknown[0], left)

    fill = loop.Loop.fill
    loop.Loop.fill, loop.guidance_scale = begin, scale  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop.Loop.fill, loop.guidance_scale = fill, own  # type: ignore[method-assign]


def other_labels(labels: Tensor) -> Tensor:
    """Another class for each image, all equally often."""
    shift = 1 + torch.arange(len(labels)) % (len(CLASS_NAMES) - 1)
    return (labels + shift) % len(CLASS_NAMES)


def blocks(count: int) -> Iterator[tuple[int, slice]]:
    """A seed and the images of each block."""
    for seed, first in enumerate(range(0, count, BLOCK)):
        yield seed, slice(first, min(first + BLOCK, count))


def judged(made: Tensor, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """What the classifier says of images made from others, by labels and `other_labels`."""
    wanted = other_labels(labels)
    alike = torch.tensor([
        any(CLASS_NAMES[old] in kind and CLASS_NAMES[new] in kind for kind in KINDS)
        for old, new in zip(labels.tolist(), wanted.tolist(), strict=True)
    ])  # fmt: skip
    return {
        **asdict(evaluate_images(made, wanted)),
        "seen_as_before": evaluate_images(made, labels).accuracy,
        "of_a_kind": int(alike.sum()),
        "accuracy_of_a_kind": evaluate_images(made[alike], wanted[alike]).accuracy,
        "originals_seen_as_asked": evaluate_images(images, wanted).accuracy,
    }


def edits(model: Pipeline, images: Tensor, labels: Tensor, over: str) -> Tensor:
    """Their lower halves made anew; outside not one pixel has changed."""
    mask = torch.zeros(len(images), 28, 28)
    mask[:, 14:] = 1
    with ramp(over):
        made = torch.cat([
            model.edit(images[block], mask[block], other_labels(labels)[block], seed=seed)
            for seed, block in blocks(len(images))
        ])  # fmt: skip
    assert torch.equal(made[:, :, :14], images[:, :, :14])
    return made


def accuracies(model: Pipeline, count: int) -> Iterator[dict[str, Any]]:
    data = read_fashion_mnist("test")
    images = to_model_range(data.images[:count])
    labels = torch.from_numpy(data.labels[:count]).long()
    made = edits(model, images, labels, "all tokens")
    few = slice(0, FEW)
    for part in (slice(None), few):
        row = judged(made[part], images[part], labels[part])
        yield {"ramp": "all tokens", **row}
    made = edits(model, images[few], labels[few], "an edit's own")
    row = judged(made, images[few], labels[few])
    yield {"ramp": "an edit's own", **row}


def mar_b() -> Pipeline:
    """MAR-B's sizes with random weights, fewer iterations and steps than it has."""
    preset = MAR_PRESETS["mar_base"]
    module = random_module("mar_base", steps=25)
    return Pipeline(FastMAR(module), replace(preset.settings, num_iter=8, steps=25))


def times(name: str, model: Pipeline, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of one processor for a generation, and for an edit of a quarter of the tokens, taking
    turns; the first turn of each doesn't count."""
    module = model.model.module
    count = round(module.seq_len / 4)
    tokens = torch.zeros(batch, module.seq_len, module.token_embed_dim)
    mask = (torch.arange(module.seq_len) < count).expand(batch, -1)
    ways: dict[str, Callable[[], object]] = {
        "generation": lambda: model.generate([0] * batch, seed=0),
        "edit": lambda: model.edit(tokens, mask, 0, seed=0),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in [*ways] * (rounds + 1):
        start = time.process_time()
        ways[way]()
        seconds[way].append(time.process_time() - start)
    medians = {way: statistics.median(found[1:]) for way, found in seconds.items()}
    return {
        "model": name, "batch": batch, "rounds": rounds,
        "num_iter": model.settings.num_iter, "steps": model.settings.steps,
        "tokens": module.seq_len, "unknown": count,
        "cpu_seconds": medians, "ratio": medians["edit"] / medians["generation"],
    }  # fmt: skip


def all_times() -> Iterator[dict[str, Any]]:
    torch.set_num_threads(1)  # whose seconds are the processor's, however busy it is
    small = marfast.load("fashion-mnist")
    for batch in (1, 16):
        yield times("fashion-mnist", small, batch, rounds=5)
    yield times("mar_base", mar_b(), 1, rounds=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--parts", default="accuracy,time")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    parts = {
        "accuracy": lambda: accuracies(marfast.load("fashion-mnist"), chosen.images),
        "time": all_times,
    }
    for part in chosen.parts.split(","):
        rows = []
        for row in parts[part]():
            rows.append(row)
            print({k: v for k, v in row.items() if k != "per_class_accuracy"}, flush=True)
            write_rows(chosen.out / f"editing-{part}.json", rows, force=True, commit=commit())


if __name__ == "__main__":
    main()
