"""What a step would cost is what docs/gpu_without_a_gpu.md's table says."""

from pathlib import Path

import pytest

from tests.build.tree import ROOT

from . import build, costs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build()),
]

VARYING = ("trips to L2 (memory)", "KiB from L2 (unused)")
"""Columns that depend a little on where the host's memory lies."""


def held(row: str) -> list[str]:
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    return [cell for name, cell in zip(costs.COLUMNS, cells, strict=True) if name not in VARYING]


@pytest.mark.parametrize(("head", "rows", "dtype"), [("B", 2, "bfloat16"), ("B", 2, "float32")])
def test_the_table_is_of_this_kernel(head: str, rows: int, dtype: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "gpu_without_a_gpu.md").read_text()
    first = next(x for x in text.splitlines() if x.startswith(f"| {head}, {dtype}, {rows} |"))
    assert held(costs.row(costs.program(tmp_path), head, rows, dtype)) == held(first)
