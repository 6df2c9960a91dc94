"""Where docs/numerics.md defines bits and Triton keeps them: `ddpm_step`, exp, GELU."""

import pytest
import torch
from torch import Tensor

from marfast import ops
from tests.helpers import assert_bitwise_equal, on_every_isa
from tests.ops.heads import step_inputs
from tests.ops.test_ddpm_step import inputs, row, sigma_of

pytestmark = pytest.mark.usefixtures("needs_native")


def assert_the_cpus_bits(op, *args) -> Tensor:
    with ops.backend("triton"):
        actual = op(*args)
    assert_bitwise_equal(actual, on_every_isa(op, *args)["portable"])
    return actual


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_has_the_bits_of_the_cpus(guided, dtype, clip):
    for seed in range(3):
        args = (*inputs(33, 16, guided=guided, dtype=dtype, seed=seed), 0.97, clip)
        assert_the_cpus_bits(ops.ddpm_step, *args)


def test_a_step_of_another_sampler_has_the_bits_of_the_cpus():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert_the_cpus_bits(ops.ddpm_step, *step_inputs(33, 17, dtype))


def test_a_step_of_numbers_that_are_none():
    x, output, noise, *rest = inputs(4, 8)
    x[0, 0], noise[1, 1], output[2, 2], output[3, 12] = torch.tensor(
        [torch.nan, torch.inf, torch.inf, torch.nan]
    )
    actual = assert_the_cpus_bits(ops.ddpm_step, x, output, noise, *rest, 1.0, True)
    assert actual.isnan().any()
    assert actual.isfinite().any()


def test_exp_over_its_whole_range():
    """σ, seen through the op, from 0 through the subnormals to infinity."""
    v = torch.linspace(-441, 379, 20_001).reshape(1, -1)
    output = torch.cat([torch.zeros_like(v), v], dim=1)
    coefficients = row(p=1, q=1, log_beta=1, noise=1)
    with ops.backend("triton"):
        actual = sigma_of(output, coefficients, 1)
    assert actual.min() == 0
    assert actual.max() == torch.inf
    with ops.backend("cpu"):
        assert_bitwise_equal(actual, sigma_of(output, coefficients, 1))


def test_gelu_over_its_whole_range():
    """Through a product of one number by 1."""
    values = torch.cat([torch.linspace(-20, 20, 999), torch.tensor([torch.nan, 0.0, -0.0])])
    one, zero = torch.ones(1, 1), torch.zeros(1)
    args = (values[:, None].contiguous(), one, zero, None, None, None, True)
    assert_the_cpus_bits(ops.fused_linear, *args)
