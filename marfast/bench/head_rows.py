"""Rows of a head's sampling loop: who takes how long, beside whom, how near to the limit."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from marfast.bench import heads
from marfast.bench.floors import Floors, measure
from marfast.bench.measure import (
    DTYPES,
    TIMES_PYTORCH,
    Options,
    cast_weights_kept,
    quiet_timing,
    require,
    verdict,
)
from marfast.bench.memory import working_mb
from marfast.bench.results import Row
from marfast.bench.timing import joined
from marfast.reference import Head, SimpleMLPAdaLN

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}  # of samples of order 1, over a whole loop
SITTINGS = 3
"""Of the rounds, each with a copy of the weights of its own: where those lie in memory makes a
difference of some per cent, which would stay for a whole process."""


def head_floors(net: SimpleMLPAdaLN | Head, device: str) -> Floors:
    """The limits that matter to this head."""
    weights = heads.head_workload(net, 2, 2).weights_a_step
    return measure([2 * weights, 4 * weights], device)


def measure_head(
    name: str,
    net: SimpleMLPAdaLN | Head,
    rows: int,
    steps: int,
    options: Options,
    floors: Floors,
    spec: str = "",
) -> list[Row]:
    """The head's sampling loop for R rows (guided: two a token): a row for each contender. `spec`
    is a named head's, of `named_heads.NAMED`."""
    workload = heads.head_workload(net, rows, steps, spec)

    def told(what: str) -> None:
        options.report(f"{name}, R = {rows}: {what}")

    steady: dict[str, Callable[[], Tensor]] = {}
    if options.compile:
        steady["compile"] = heads.compiled(workload)
    if options.original is not None and not spec:
        steady["original"] = heads.original(workload, options.original)
    ours = {
        f"{backend} {dtype}": (backend, dtype)
        for dtype in DTYPES
        for backend in heads.backends(workload, DTYPES[dtype])
    }

    def contenders(workload: heads.HeadWorkload) -> dict[str, Callable[[], Tensor]]:
        own = {who: heads.ours(workload, b, DTYPES[d]) for who, (b, d) in ours.items()}
        others = {"eager": heads.eager(workload), "autocast": heads.warm_autocast(workload)}
        return {**others, **steady, **own}

    with torch.no_grad(), cast_weights_kept():
        told("comparing results")
        runs = contenders(workload)
        expected = runs["eager"]()
        difference = {
            who: float((run() - expected).abs().max())
            for who, run in runs.items()
            if who != "original"  # it draws noise of its own
        }
        allowed = dict[str, float]()
        for who, (_, dtype) in ours.items():
            # few steps amplify rounding, PyTorch's as well
            pytorchs = TIMES_PYTORCH * difference["autocast"] if dtype == "bfloat16" else 0.0
            allowed[who] = max(TOLERANCE[dtype], pytorchs)
            require(f"{name}, R = {rows}, {who}", difference[who], allowed[who])
        verified = {who: (difference[who], allowed[who]) for who in ours}
        options.verified(verdict(f"{name}, R = {rows}", verified))
        memory = {who: working_mb(run, expected.device) for who, run in runs.items()}
        timings = []
        for _ in range(SITTINGS):
            runs = contenders(heads.head_workload(copy.deepcopy(net), rows, steps, spec))
            timings.append(
                quiet_timing(runs, -(-options.rounds // SITTINGS), options.attempts, told)
            )
        timing = joined(timings)
    tokens = expected.shape[-2]
    baselines = [who for who in runs if who not in ours]
    found: list[Row] = []
    for who in runs:
        dtype = ours[who][1] if who in ours else "bfloat16" if who == "autocast" else "float32"
        size = workload.weights_a_step * DTYPES[dtype].itemsize
        floor = 1e3 * floors.seconds(workload.flops_a_step(rows), size, dtype)
        p20, p50, p80 = timing.percentiles(who, 1e3 / steps)
        found.append(
            {
                "workload": name,
                "rows": rows,
                "steps": steps,
                "who": who,
                "dtype": dtype,
                "rounds": len(timing.seconds[who]),
                "ms_a_step_p20_p50_p80": [p20, p50, p80],
                "tokens_a_second": round(1e3 * tokens / (p50 * steps), 3),
                "working_mb": memory[who],
                "ratio_to": {other: timing.ratio(other, who) for other in baselines},
                "floor_ms_a_step": round(floor, 4),
                "share_of_floor": round(floor / p50, 3),
                "difference": difference.get(who),
                "difference_allowed": allowed.get(who),
                "others_took": timing.busy,
            }
        )
    return found
