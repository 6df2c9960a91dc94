"""Rule 4: errors against float64, over 8 seeds, within 2 (RMS) and 4 (largest) times PyTorch's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from tests.helpers import assert_as_accurate
from tests.triton.cases import ACCURACY, DTYPES, Case


@pytest.mark.parametrize("case", ACCURACY, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_against_float64(case: Case, dtype: torch.dtype) -> None:
    op = OPS[case.op]

    def run(*args: Any) -> Tensor:
        with ops.backend("triton"):
            return op(*args)

    assert_as_accurate(run, op.plain, [case.args(dtype, seed) for seed in range(8)])


@pytest.mark.parametrize("value", [0.37, 20.3, -1000.1])
@pytest.mark.parametrize("width", [7, 47, 1000])
def test_a_constant_row_is_0(width: int, value: float) -> None:
    x, zeros = torch.full((2, width), value), torch.zeros(2, width)
    norm = torch.ones(width), torch.zeros(width)
    with ops.backend("triton"):
        assert torch.equal(ops.layer_norm_modulate(x, zeros, zeros), zeros)
        projected = ops.fused_linear(x, torch.eye(width)[:3], torch.zeros(3), *norm)
        assert torch.equal(projected, torch.zeros(2, 3))


def test_a_query_that_is_no_position_is_nan() -> None:
    """Where nobody waits for what a tensor holds; on the CPU the op has raised before."""
    qkv = torch.randn(1, 5, 3, 2, 16)
    queries = torch.tensor([[4, -1, 5, 2**32]])
    a = ops.attention.bind(qkv, queries)
    for run in (
        OPS["attention"].backends["triton"].run,
        OPS["attention"].backends["reference"].run,
    ):
        result = run(a)
        assert result[0, 1:].isnan().all()
        torch.testing.assert_close(result[0, 0], ops.attention(qkv)[0, 4])
