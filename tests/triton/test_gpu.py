"""On a GPU: accuracy, the bits of an update, graphs; the kernels as Triton compiles them there."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from tests.helpers import assert_as_accurate, assert_bitwise_equal
from tests.ops.heads import sample_inputs
from tests.ops.test_ddpm_step import inputs
from tests.triton.cases import ACCURACY, DTYPES, WIDE, Case

pytestmark = pytest.mark.gpu


def on_gpu(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(on_gpu, value))
    return value.cuda() if isinstance(value, Tensor) else value


@pytest.mark.parametrize("case", [*ACCURACY, *WIDE], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_against_float64(case: Case, dtype: torch.dtype) -> None:
    op = OPS[case.op]

    def run(*args: Any) -> Tensor:
        with ops.backend("triton"):
            return op(*args)

    assert_as_accurate(run, op.plain, [on_gpu(case.args(dtype, seed)) for seed in range(8)])


@pytest.mark.parametrize("guided", [False, True])
def test_an_update_has_the_cpus_bits(needs_native: None, guided: bool) -> None:
    args = (*inputs(333, 16, guided=guided), 0.97, True)
    v = torch.linspace(-441, 379, 100_003).reshape(1, -1)  # σ from 0 to infinity
    zero, one = torch.zeros_like(v), torch.ones_like(v)
    coefficients = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    sigma = (zero, torch.cat([zero, v], dim=1), one, coefficients, torch.ones(1))
    for given in (args, sigma):
        with ops.backend("triton"):
            actual = ops.ddpm_step(*on_gpu(given)).cpu()
        with ops.backend("cpu"):
            assert_bitwise_equal(actual, ops.ddpm_step(*given))


@pytest.mark.parametrize("guided", [False, True])
def test_a_graph_replays_a_sample_on_other_numbers(guided: bool) -> None:
    args = on_gpu(sample_inputs(5, guided=guided, width=128, steps=10))
    with ops.backend("triton"):
        ops.ddpm_sample(*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = ops.ddpm_sample(*args)
        args[0].normal_()
        graph.replay()
        assert_bitwise_equal(out, ops.ddpm_sample(*args))
    with ops.backend("reference"):
        torch.testing.assert_close(out, ops.ddpm_sample(*args), rtol=1e-3, atol=1e-3)
