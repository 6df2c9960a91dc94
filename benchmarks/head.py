"""The head's sampling loop, marfast's kernel beside the reference (which is the original's loop).

    python benchmarks/head.py                        # MAR-B, L and H
    python benchmarks/head.py --heads mar_base --rows 2,8

Both run in turn, round by round, in one process; medians, and the 20th and 80th percentile. A
result that is further from the reference than float32 allows is refused before anything is timed.
Writes benchmarks/results/head-<instruction set>.json.
"""

import argparse
import os
import subprocess
import time
from typing import Any

import numpy as np
import torch
from floors import Floors, measure
from quality.results import FOLDER, write_rows
from rich.console import Console
from rich.table import Table
from workloads import HeadWorkload, head_workload, make_head

from marfast import ops
from marfast.ops import native

TOLERANCE = 1e-3  # of samples of order 1, over a whole loop


def run(workload: HeadWorkload, packed: torch.Tensor, backend: str) -> torch.Tensor:
    with ops.backend(backend), torch.no_grad():
        return ops.ddpm_sample(*workload.arguments, packed if backend == "cpu" else None)


def timed(*arguments: Any) -> float:
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def measure_head(
    preset: str, rows: int, steps: int, rounds: int, net: Any, packed: Any, floors: Floors
) -> dict[str, Any]:
    workload = head_workload(net, rows, steps)
    difference = (run(workload, packed, "cpu") - run(workload, packed, "reference")).abs().max()
    if not difference < TOLERANCE:
        raise SystemExit(f"{preset}, R = {rows}: off by {difference:.3g}; nothing was timed")
    backends = ("cpu", "reference")
    times = np.array(
        [[timed(workload, packed, backend) for backend in backends] for _ in range(rounds)]
    )
    ours, theirs = np.percentile(times / steps * 1e3, [20, 50, 80], axis=0).T
    floor = 1e3 * floors.seconds(workload.flops_a_step(rows), workload.weight_bytes_a_step)
    return {
        "head": preset,
        "rows": rows,
        "steps": steps,
        "rounds": rounds,
        "ms_a_step_p20_p50_p80": [round(float(t), 4) for t in ours],
        "reference_ms_a_step_p20_p50_p80": [round(float(t), 4) for t in theirs],
        "ratio": round(float(np.median(times[:, 1] / times[:, 0])), 3),
        "floor_ms_a_step": round(floor, 4),
        "share_of_floor": round(floor / float(ours[1]), 3),
        "difference": float(difference),
    }


def foreign_load() -> float:
    """Cores that other processes kept busy in the last minute, about."""
    return round(os.getloadavg()[0], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", default="mar_base,mar_large,mar_huge")
    parser.add_argument("--rows", default="2,8,32,128")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernel to time: {reason}")

    load = foreign_load()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    isa = native.extension().isa()
    table = Table("head", "R", "ms a step", "reference", "ratio", "of floor", "difference")
    rows: list[dict[str, Any]] = []
    packing: dict[str, Any] = {}
    floors = None
    for preset in arguments.heads.split(","):
        net = make_head(preset)
        start = time.perf_counter()
        packed = ops.pack_head([*net.parameters()])
        packing[preset] = {"seconds": time.perf_counter() - start, "bytes": packed.nbytes}
        sequential = head_workload(net, 2, 2).weight_bytes_a_step
        floors = measure([sequential])
        for count in map(int, arguments.rows.split(",")):
            row = measure_head(
                preset, count, arguments.steps, arguments.rounds, net, packed, floors
            )
            row["peak_gflops"] = round(floors.flops / 1e9, 1)
            row["read_gb_a_second"] = round(floors.bandwidth[sequential] / 1e9, 1)
            rows.append(row)
            table.add_row(
                preset,
                str(count),
                f"{row['ms_a_step_p20_p50_p80'][1]:.2f}",
                f"{row['reference_ms_a_step_p20_p50_p80'][1]:.2f}",
                f"{row['ratio']:.2f}x",
                f"{100 * row['share_of_floor']:.0f} %",
                f"{row['difference']:.1e}",
            )
            write_rows(
                FOLDER / f"head-{isa}.json",
                rows,
                commit=commit.strip(),
                instruction_set=isa,
                load_before=load,
                packing=packing,
            )
    Console().print(table)


if __name__ == "__main__":
    main()
