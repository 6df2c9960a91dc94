"""The head's sampling loop: marfast's kernel in float32 and bfloat16 beside what runs without it.

    python benchmarks/head.py                          # MAR-B, L and H
    python benchmarks/head.py --heads mar_base --rows 2,8 --compile

Baselines: the reference (which is the original's loop), the same under a warm bfloat16 autocast,
and with --compile the head under torch.compile. Everything runs in turn, round by round, in one
process. A result further from the float32 reference than its dtype allows is refused before
anything is timed. Writes benchmarks/results/head-<instruction set>.json.
"""

import argparse
import time
from typing import Any

import baselines
import torch
from floors import Floors, measure
from quality.results import FOLDER, write_rows
from rich.console import Console
from rich.table import Table
from timing import commit, in_turn
from workloads import head_workload, make_head

from marfast import ops
from marfast.ops import native
from marfast.reference import SimpleMLPAdaLN

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}  # of samples of order 1, over a whole loop
BASELINE = {"float32": "eager", "bfloat16": "autocast"}
AT_MOST_BUSY = 0.1  # else a row is measured again, up to three times


def measure_head(
    preset: str,
    net: SimpleMLPAdaLN,
    packed: dict[str, torch.Tensor],
    rows: int,
    options: argparse.Namespace,
    floors: Floors,
) -> list[dict[str, Any]]:
    """A row for each dtype."""
    workload, steps = head_workload(net, rows, options.steps), options.steps

    def kernel(dtype: str) -> baselines.Run:
        arguments = workload.in_dtype(DTYPES[dtype])
        return lambda: ops.ddpm_sample(*arguments, packed[dtype])

    runs = {
        "eager": baselines.eager(workload),
        "autocast": baselines.warm_autocast(workload),
        **{dtype: kernel(dtype) for dtype in DTYPES},
    }
    if options.compile:
        runs["compile"] = baselines.compiled(workload)
    expected = runs["eager"]()
    difference = {name: float((run() - expected).abs().max()) for name, run in runs.items()}
    torch.clear_autocast_cache()  # of the head before this one
    for dtype, allowed in TOLERANCE.items():
        if not difference[dtype] < allowed:
            raise SystemExit(f"{preset}, R = {rows}, {dtype}: off by {difference[dtype]:.3g}")
    for _ in range(3):
        timing = in_turn(runs, options.rounds)
        if timing.busy <= AT_MOST_BUSY:
            break
    results = []
    for dtype, torch_dtype in DTYPES.items():
        size = workload.weights_a_step * torch_dtype.itemsize
        floor = 1e3 * floors.seconds(workload.flops_a_step(rows), size, dtype)
        results.append(
            {
                "head": preset,
                "rows": rows,
                "dtype": dtype,
                "steps": steps,
                "rounds": options.rounds,
                "ms_a_step_p20_p50_p80": timing.percentiles(dtype, 1e3 / steps),
                "baselines_ms_a_step_p20_p50_p80": {
                    name: timing.percentiles(name, 1e3 / steps)
                    for name in runs
                    if name not in DTYPES
                },
                "ratio_to": {
                    name: timing.ratio(name, dtype) for name in runs if name not in DTYPES
                },
                "floor_ms_a_step": round(floor, 4),
                "share_of_floor": round(floor / timing.percentiles(dtype, 1e3 / steps)[1], 3),
                "difference": difference[dtype],
                "baseline_differences": {k: v for k, v in difference.items() if k not in DTYPES},
                "others_took": timing.busy,
            }
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", default="mar_base,mar_large,mar_huge")
    parser.add_argument("--rows", default="2,8,32,128")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile as a baseline, too")
    options = parser.parse_args()
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernel to time: {reason}")

    isa = native.extension().isa()
    titles = ("head", "R", "dtype", "ms a step", "eager", "autocast", "of floor", "off", "others")
    table = Table(*titles)
    rows: list[dict[str, Any]] = []
    packing: dict[str, Any] = {}
    with torch.no_grad():
        for preset in options.heads.split(","):
            net = make_head(preset)
            packed = {}
            for dtype, torch_dtype in DTYPES.items():
                weights = [weight.to(torch_dtype) for weight in net.parameters()]
                start = time.perf_counter()
                packed[dtype] = ops.pack_head(weights)
                took = time.perf_counter() - start
                packing[f"{preset} {dtype}"] = {"seconds": took, "bytes": packed[dtype].nbytes}
            weights_a_step = head_workload(net, 2, 2).weights_a_step
            floors = measure([2 * weights_a_step, 4 * weights_a_step])
            for count in map(int, options.rows.split(",")):
                for row in measure_head(preset, net, packed, count, options, floors):
                    rows.append(row | {"floors": floors.to_dict()})
                    table.add_row(
                        *(preset, str(count), row["dtype"]),
                        f"{row['ms_a_step_p20_p50_p80'][1]:.2f}",
                        *(f"{row['ratio_to'][name]:.2f}x" for name in ("eager", "autocast")),
                        f"{100 * row['share_of_floor']:.0f} %",
                        f"{row['difference']:.1e}",
                        f"{100 * row['others_took']:.0f} %",
                    )
                write_rows(
                    FOLDER / f"head-{isa}.json",
                    rows,
                    commit=commit(),
                    instruction_set=isa,
                    packing=packing,
                )
    Console().print(table)


if __name__ == "__main__":
    main()
