"""Images a second of the whole loop of a model of the paper, by every backend, beside autocast.

    python -m tests.gpu.image_times --out FILE [--preset mar_base] [--batch 1,64] [--iterations 16]

100 steps of each token, guidance 2.9, bfloat16; random weights, which take as long as any.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import marfast
from marfast.bench.images import random_module
from marfast.bench.results import Row
from marfast.bench.timing import seconds
from marfast.ops.op import OPS
from tests.gpu.rows import Rows

CFG = 2.9
BACKENDS = (
    "auto",
    *(name for name in ("torch", "cuda", "triton") if name in OPS["ddpm_sample"].backends),
)


def generation(module: Any, batch: int, iterations: int) -> Callable[[], Tensor]:
    device = next(module.parameters()).device
    labels = torch.arange(batch, device=device) % module.num_classes

    def run() -> Tensor:
        torch.manual_seed(0)
        tokens: Tensor = module.sample_tokens(batch, num_iter=iterations, cfg=CFG, labels=labels)
        return tokens

    return run


def timed(run: Callable[[], Tensor], batch: int, first: Tensor | None) -> tuple[Row, Tensor]:
    """A run that warms up, then the better of two."""
    tokens = run()
    took = min(seconds(run) for _ in range(2))
    row = {"seconds": round(took, 4), "images_a_second": round(batch / took, 3)}
    if first is not None:
        row["off"] = float((tokens - first).abs().max())
    return row, tokens


def measure(rows: Rows, name: str, module: Any, batch: int, iterations: int) -> None:
    """A row for each contender."""
    run = generation(module, batch, iterations)
    device = next(module.parameters()).device.type
    first: list[Tensor | None] = [None]

    def eager() -> Row:
        with torch.autocast(device, torch.bfloat16):
            row, first[0] = timed(run, batch, None)
        return row

    def ours(backend: str) -> Row:
        marfast.accelerate(module, backend=backend, dtype=torch.bfloat16)
        try:
            report = marfast.warmup(module, batch=batch, num_iter=iterations, cfg=CFG)
            row, _ = timed(run, batch, first[0])
            return row | {"warmup": asdict(report)}
        finally:
            marfast.restore(module)

    case = f"{name}, B = {batch}, K = {iterations}"
    rows.measure(f"{case}, autocast", eager)
    for backend in BACKENDS:
        rows.measure(f"{case}, {backend}", lambda backend=backend: ours(backend))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="mar_base")
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--iterations", type=int, default=16)
    options = parser.parse_args()
    module = random_module(options.preset, 100).cuda()
    rows = Rows(options.out)
    for batch in options.batch.split(","):
        measure(rows, options.preset, module, int(batch), options.iterations)
    sys.exit(bool(rows.failures()))


if __name__ == "__main__":
    main()
