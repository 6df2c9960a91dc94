"""Operator calls of one autoregressive iteration, MAR-B at batch 1: the original's and ours.

    python benchmarks/operator_calls.py --original path/to/mar

Every call that torch's profiler sees on a CPU, nested ones included, over a whole `sample_tokens`
of two iterations and 100 steps under guidance, before and after `marfast.accelerate`; halved.
Counts don't depend on the machine's speed. Writes benchmarks/results/operator-calls.json.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from drop_in import make, sample
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

import marfast
from marfast.bench.results import commit, write_rows
from marfast.verifying import original
from marfast.verifying.runner import load_original, patch_process

RESULTS = Path(__file__).parent / "results"

ITERATIONS = 2


def calls(module: Any) -> Counter[str]:
    """Of one iteration, by operator."""
    sample(module, ITERATIONS)  # packs, and compares known answers
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        sample(module, ITERATIONS)
    counted: Counter[str] = Counter()
    for event in profiled.key_averages():
        if "::" in event.key:
            counted[event.key] = round(event.count / ITERATIONS)
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, required=True, help="a checkout of LTH14/mar")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    checkout = original.require_checkout(options.original)
    original.require_packages()
    patch_process()
    module = make(load_original(checkout), "mar_base", options.steps, None)
    counted = {"original": calls(module)}
    marfast.accelerate(module)
    counted["marfast"] = calls(module)
    with marfast.backend("reference"):
        counted["marfast, plain PyTorch"] = calls(module)

    table = Table("", "calls an iteration", "most often")
    rows = []
    for who, by_name in counted.items():
        most = by_name.most_common(5)
        rows.append({"who": who, "calls": sum(by_name.values()), "most_often": dict(most)})
        listed = ", ".join(f"{name} {count}" for name, count in most)
        table.add_row(who, f"{sum(by_name.values()):,}", listed)
    Console().print(table)
    write_rows(
        RESULTS / "operator-calls.json",
        rows,
        commit=commit(),
        original_commit=original.commit(checkout),
        model="mar_base",
        steps=options.steps,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
