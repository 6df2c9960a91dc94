"""What a step of the persistent sampler would cost on a device, by the rules of cost.h.

`python -m tests.emulation.costs [HEAD ROWS DTYPE ...]` prints rows of docs/gpu_without_a_gpu.md's
table; without words, all of them.
"""

import sys
import tempfile
from pathlib import Path

from . import build

CASES = (
    *(("B", rows, "bfloat16") for rows in (2, 8, 32)),
    *(("B", rows, "float32") for rows in (2, 8, 32)),
    *((head, rows, "bfloat16") for head in ("L", "H") for rows in (2, 8)),
)

COLUMNS = (
    "head, dtype, R",
    "µs",
    "plan's µs",
    "trips to L2 (memory)",
    "barriers: grid (block)",
    "wavefronts (conflicts)",
    "KiB from L2 (unused)",
    "FFMA / HMMA",
)


def program(folder: Path) -> Path:
    return build.link_program(build.HERE / "run_costs.cpp", folder / "costs")


def costs(program: Path, head: str, rows: int, dtype: str) -> dict[str, float]:
    done = build.run(program, head, rows, dtype)
    assert done.returncode == 0, done.stdout + done.stderr
    pairs = (line.split("\t") for line in done.stdout.splitlines())
    return {name: float(value) for name, value in pairs}


def row(program: Path, head: str, rows: int, dtype: str) -> str:
    """A line of the table."""
    c = costs(program, head, rows, dtype)
    return (
        f"| {head}, {dtype}, {rows} | {c['us']:.0f} | {c['plan us']:.0f} "
        f"| {c['L2 trips']:.0f} ({c['memory trips']:.0f}) "
        f"| {c['grid barriers']:.0f} ({c['block barriers']:.0f}) "
        f"| {c['wavefronts']:.0f} ({c['conflicts']:.0f}) "
        f"| {c['KiB from L2']:.0f} ({c['of it unused']:.0f}) | {c['FFMA']:.0f} / {c['HMMA']:.0f} |"
    )


def main() -> None:
    words = sys.argv[1:]
    cases = [(h, int(r), d) for h, r, d in zip(*[iter(words)] * 3, strict=True)] or CASES
    with tempfile.TemporaryDirectory() as folder:
        made = program(Path(folder))
        print("|", " | ".join(COLUMNS), "|")
        print("| --- " * len(COLUMNS) + "|")
        for case in cases:
            print(row(made, *case), flush=True)


if __name__ == "__main__":
    main()
