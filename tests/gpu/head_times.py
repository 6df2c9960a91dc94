"""Microseconds a step of a head's sampling loop, by every backend and regime, beside PyTorch.

    python -m tests.gpu.head_times --out FILE [--head base] [--rows 2,8,32] [--steps 50]

All but the first contender are replays of one CUDA graph of the whole loop:

    eager             the reference, launched from the host
    eager, graph      the same, captured
    torch | triton    the backend
    cuda, persistent  the backend's regimes, each where it fits
    cuda, tall

A row has p20, p50 and p80 of a step, how far the result is from the float32 reference's, the share
of the floor (bytes over the measured bandwidth or operations over the measured peak) and of eager.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marfast.bench import heads
from marfast.bench.floors import Floors
from marfast.bench.head_rows import head_floors
from marfast.bench.measure import DTYPES
from marfast.bench.results import Row
from marfast.bench.timing import percentiles, seconds
from marfast.ops.op import OPS
from marfast.ops.runtime.capture import capture
from marfast.reference import SimpleMLPAdaLN
from tests.gpu.regimes import REGIMES, Run, Unable, in_regime
from tests.gpu.rows import Rows

ROWS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
ROUNDS, ENOUGH = 7, 1.0  # at most, and seconds after which there are no more
SAMPLE = OPS["ddpm_sample"]


def contenders(a: Any) -> Iterator[tuple[str, Run, bool]]:
    """Names, what they run for the op's bound arguments, and whether a graph is captured of it."""

    def of(backend: str) -> Run:
        ok, reason = SAMPLE.backends[backend].can_run(a)

        def run() -> Tensor:
            if not ok:
                raise Unable(reason)
            return SAMPLE.backends[backend].run(a)

        return run

    yield "eager", of("reference"), False
    yield "eager, graph", of("reference"), True
    for name in ("torch", "triton"):
        if name in SAMPLE.backends:
            yield name, of(name), True
    for regime in REGIMES:
        yield f"cuda, {regime}", in_regime(regime, of("cuda")), True


def captured(run: Run) -> Run:
    """The replay of a graph of it."""
    if not torch.cuda.is_available():
        raise Unable("there is no CUDA device to capture a graph on")
    graph, made = torch.cuda.CUDAGraph(), list[Tensor]()
    device = torch.device("cuda", torch.cuda.current_device())
    capture(graph, device, lambda: made.append(run()), torch.cuda.graph_pool_handle())

    def replay() -> Tensor:
        graph.replay()
        return made[0]

    return replay


def seconds_on_device(run: Run) -> float:
    """Of one call, by the device's own clock where there is one."""
    if not torch.cuda.is_available():
        return seconds(run)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end)


def timed(
    run: Run, graph: bool, steps: int, expected: Tensor, floor: float, eager: float | None
) -> Row:
    """A contender's row; `floor` and `eager` are seconds of a step."""
    try:
        run()  # compiles, tries, allocates
        ready = captured(run) if graph else run
    except Unable as reason:
        return {"unable": str(reason)}
    off = float((ready() - expected).abs().max())
    runs: list[float] = []
    while len(runs) < ROUNDS and sum(runs) < ENOUGH:
        runs.append(seconds_on_device(ready))
    took = np.array(runs) / steps
    middle = float(np.median(took))
    return {
        "us_a_step_p20_p50_p80": percentiles(took, scale=1e6),
        "floor_us": round(1e6 * floor, 2),
        "share_of_floor": round(floor / middle, 3),
        "times_eager": None if eager is None else round(eager / middle, 2),
        "off": off,
    }


def measure(
    rows: Rows, name: str, net: SimpleMLPAdaLN, counts: list[int], steps: int, floors: Floors
) -> None:
    """A row for each count, dtype and contender."""
    for count, (dtype_name, dtype) in itertools.product(counts, DTYPES.items()):
        work = heads.head_workload(net, count, steps)
        expected = SAMPLE.plain(*work.arguments)
        a = SAMPLE.bind(*work.in_dtype(dtype).arguments)
        bytes_read = work.weights_a_step * dtype.itemsize
        floor = floors.seconds(work.flops_a_step(count), bytes_read, dtype_name)
        eager = None
        for who, run, graph in contenders(a):
            case = f"{name}, R = {count}, {dtype_name}, {who}"
            rows.measure(case, partial(timed, run, graph, steps, expected, floor, eager))
            if who == "eager" and "failed" not in rows.rows[case]:
                eager = 1e-6 * rows.rows[case]["us_a_step_p20_p50_p80"][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--head", default="base", choices=("base", "large", "huge"))
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    net = heads.make_head(f"mar_{options.head}", "cuda")
    floors = head_floors(net, "cuda")
    print(json.dumps(floors.to_dict()), flush=True)
    rows = Rows(options.out)
    counts = [int(count) for count in options.rows.split(",")]
    with torch.no_grad():
        measure(rows, options.head, net, counts, options.steps, floors)
    sys.exit(bool(rows.failures()))


if __name__ == "__main__":
    main()
