"""What a step would cost is what docs/gpu_without_a_gpu.md's table says."""

from pathlib import Path

import pytest

from tests.build.tree import ROOT

from . import build, costs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build()),
]


@pytest.mark.parametrize(("head", "rows", "dtype"), [("B", 2, "bfloat16"), ("B", 2, "float32")])
def test_the_table_is_of_this_kernel(head: str, rows: int, dtype: str, tmp_path: Path) -> None:
    table = (ROOT / "docs" / "gpu_without_a_gpu.md").read_text().splitlines()
    assert costs.row(costs.program(tmp_path), head, rows, dtype) in table
