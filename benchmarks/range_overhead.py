"""What the named ranges cost where no tool is attached, over a whole sample of MAR-B.

    python benchmarks/range_overhead.py

The sample is timed once, counting the ranges that it opens; one that nobody looks at is timed
alone, the median of runs. Their product over the sample's time is the share, which must be under
0.1 %. Writes benchmarks/results/range-overhead-<instruction set>.json.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from marfast import profiling
from marfast.benchmarking.images import random_module
from marfast.benchmarking.results import commit, write_rows
from marfast.checkpoints import get_preset
from marfast.generation import Pipeline
from marfast.model import FastMAR
from marfast.ops import native

FOLDER = Path(__file__).parent / "results"
LIMIT = 1e-3


def seconds_a_range(calls: int = 20_000, runs: int = 9) -> float:
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(calls):
            with profiling.range("head", 8):
                pass
        took.append(time.perf_counter() - start)
    return float(np.median(took)) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    model = FastMAR(random_module("mar_base", options.steps))
    pipeline = Pipeline(model, get_preset("mar_base").settings)
    settings = {"num_iter": options.iterations, "steps": options.steps}
    each, opened, original = seconds_a_range(), 0, profiling.range

    def counted(name: str, payload: int = 0) -> Any:
        nonlocal opened
        opened += 1
        return original(name, payload)

    profiling.range = counted
    try:
        start = time.perf_counter()
        pipeline.generate([207], seed=0, **settings)
        took = time.perf_counter() - start
    finally:
        profiling.range = original
    share = opened * each / took
    row = {"model": "mar_base", **settings, "ranges": opened, "seconds_a_range": each}
    row |= {"seconds": round(took, 3), "share": share}
    print(f"{opened} ranges of {1e9 * each:.0f} ns in {took:.1f} s: {100 * share:.5f} %")
    if share >= LIMIT:
        raise SystemExit(f"more than {100 * LIMIT:g} %")
    write_rows(FOLDER / f"range-overhead-{native.extension().isa()}.json", [row], commit=commit())


if __name__ == "__main__":
    main()
