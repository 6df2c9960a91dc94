"""Whether a benchmark says the same twice: five runs in fresh processes, compared.

    python benchmarks/five_runs.py
    python benchmarks/five_runs.py head-b --rows 8 --steps 25 --rounds 31

The arguments are `marfast bench`'s. Each run reports p20, p50 and p80; every run's median has to
lie within every run's p20 to p80. Writes benchmarks/results/five-runs-<instruction set>.json and
ends with exit status 1 where one doesn't.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marfast.bench.results import Row, commit, write_rows
from marfast.ops import native

HERE = Path(__file__).parent
DEFAULT = ("head-b", "--rows", "2,8", "--rounds", "31")
TIMES = ("ms_a_step_p20_p50_p80", "seconds_p20_p50_p80")
CASE = ("workload", "rows", "batch", "iterations", "who")


def compared(runs: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """A row for each case: each run's percentiles, and how many of all medians lie within p20 to
    p80 of how many runs."""
    found = []
    for same in zip(*runs, strict=True):
        case = {name: same[0][name] for name in CASE if name in same[0]}
        assert all(row[name] == value for row in same for name, value in case.items())
        unit = next(name for name in TIMES if name in same[0])
        percentiles = [row[unit] for row in same]
        medians = [p50 for _, p50, _ in percentiles]
        within = [low <= median <= high for low, _, high in percentiles for median in medians]
        spread = max(medians) / min(medians) - 1
        found.append(
            {
                **case,
                unit: percentiles,
                "spread_of_medians": round(spread, 4),
                "within": sum(within),
                "of": len(within),
                "agree": all(within),
                "others_took": max(row["others_took"] for row in same),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE")
    options, arguments = parser.parse_known_args()
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernels to time: {reason}")
    command = [sys.executable, "-m", "marfast", "bench", *(arguments or DEFAULT), "--json"]
    runs = []
    for i in range(options.runs):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(done.returncode)
        runs.append(json.loads(done.stdout))
        print(f"run {i + 1} of {options.runs} is done", file=sys.stderr)
    rows = compared(runs)
    table = Table("case", "medians", "they differ by", "within p20 to p80")
    for row in rows:
        unit = next(name for name in TIMES if name in row)
        case = " ".join(str(row[name]) for name in CASE if name in row)
        medians = " ".join(f"{p50:.4g}" for _, p50, _ in row[unit])
        shown = f"{100 * row['spread_of_medians']:.1f} %", f"{row['within']} of {row['of']}"
        table.add_row(case, medians, *shown)
    Console().print(table)
    out = options.out or HERE / "results" / f"five-runs-{native.extension().isa()}.json"
    write_rows(out, rows, commit=commit(), bench=list(arguments or DEFAULT))
    print(out)
    if not all(row["agree"] for row in rows):
        raise SystemExit("some medians lie outside another run's p20 to p80")


if __name__ == "__main__":
    main()
