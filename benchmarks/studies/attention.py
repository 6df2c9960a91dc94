"""`attention` at MAR's shapes: every backend that can run it beside PyTorch's own kernel, which is
given no more queries than are wanted.

    python -m benchmarks.studies.attention [--device cuda] [--out FILE]

All take turns. On a GPU a run is a CUDA graph of 20 calls: the times are the device's, not the
launches'. A backend whose result is less accurate than PyTorch's own is refused.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from marfast.bench import floors, timing
from marfast.bench.results import commit, write_rows
from marfast.ops.op import OPS
from tests.helpers import assert_as_accurate

OP = OPS["attention"]
LIBRARY = "PyTorch"  # what the "torch" backend calls
CALLS = 20  # in a graph
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# images under guidance, positions, heads, heads' dimension, queries wanted
SHAPES = {
    "MAR-B, one image": (2, 320, 12, 64, None),
    "MAR-B, one image, last block": (2, 320, 12, 64, 4),
    "MAR-B, 64 images": (128, 320, 12, 64, None),
    "MAR-H, one image": (2, 320, 16, 80, None),
    "MAR-H, one image, last block": (2, 320, 16, 80, 4),
    "MAR-H, 64 images": (128, 320, 16, 80, None),
}


def arguments(shape: tuple[Any, ...], dtype: torch.dtype, device: str) -> tuple[Any, ...]:
    batch, length, heads, head_dim, wanted = shape
    qkv = torch.randn(batch, length, 3, heads, head_dim, device=device).to(dtype)
    queries = None
    if wanted is not None:
        queries = torch.randint(0, length, (batch, wanted), device=device)
    return qkv, queries, False


def repeated(function: Callable[[], object], device: str) -> Callable[[], object]:
    """CALLS calls, on a GPU as one graph."""

    def run() -> None:
        for _ in range(CALLS):
            function()

    if device == "cpu":
        return run
    function()  # what is loaded, compiled or checked at first use
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def floor(shape: tuple[Any, ...], dtype: torch.dtype, device: str) -> float:
    """Seconds: all of the bytes, or all of the arithmetic."""
    batch, length, heads, head_dim, wanted = shape
    queries = length if wanted is None else wanted
    size = 2 * (length + queries) * batch * heads * head_dim * dtype.itemsize
    flops = 4 * batch * heads * queries * length * head_dim
    return max(flops / peak(dtype, device), size / bandwidth(device))


@functools.cache
def peak(dtype: torch.dtype, device: str) -> float:
    return floors.peak(dtype, device)


@functools.cache
def bandwidth(device: str) -> float:
    return floors.bandwidth(1 << 28, device)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--largest", type=int, default=128, help="images, at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    table = Table("case", "dtype", "who", "p20 p50 p80, µs", "speed against it", "of floor")
    for (case, shape), dtype in ((s, d) for s in SHAPES.items() for d in DTYPES):
        if shape[0] > options.largest:
            continue
        args = arguments(shape, dtype, options.device)
        runs = {}
        for name, verdict in OP.verdicts(args).items():
            if name == "reference" or verdict not in ("", "on request only"):
                continue
            run = OP.backends[name].run
            assert_as_accurate(run, OP.reference, [args])
            who = LIBRARY if name == "torch" else name
            runs[who] = repeated(functools.partial(run, *args), options.device)
        taken = timing.in_turn(runs, options.rounds)
        for name in runs:
            times = taken.percentiles(name, 1e6 / CALLS)
            row = {
                **{"case": case, "dtype": str(dtype)[6:], "who": name},
                "us_p20_p50_p80": times,
                "ratio_to_library": taken.ratio(LIBRARY, name),
                "share_of_floor": round(floor(shape, dtype, options.device) / times[1] * 1e6, 3),
            }
            rows.append(row)
            shown = " ".join(f"{time:.4g}" for time in times)
            table.add_row(
                *(case, row["dtype"], name, shown),
                *(f"{row['ratio_to_library']:.2f}x", f"{100 * row['share_of_floor']:.0f} %"),
            )
    Console().print(table)
    if options.out is not None:
        write_rows(options.out, rows, force=True, commit=commit())


if __name__ == "__main__":
    main()
