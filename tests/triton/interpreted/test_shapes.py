"""Every kernel at hostile shapes, in every layout, against the reference."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS, Op
from marfast.verifying.compare import to_double
from tests.helpers import assert_bitwise_equal
from tests.triton.cases import HOSTILE, Case

BOUNDS = {torch.float32: 2e-5, torch.float16: 2e-2}
"""Of the result's RMS, besides four times PyTorch's own largest error: gross errors alone are
looked for here. test_accuracy has the fine bounds, and bfloat16, which has float16's code."""


def spread(args: Any, dim: int) -> Any:
    """The same numbers: no two of them adjacent (dim 0), or the rows apart (dim 1)."""
    if isinstance(args, (list, tuple)):
        return type(args)(spread(value, dim) for value in args)
    if isinstance(args, Tensor) and args.is_floating_point() and args.dim() > dim:
        if dim == 0:
            return torch.stack([args, args], -1)[..., 0]
        return torch.cat([args, args], -1)[..., : args.shape[-1]]
    return args


def layout(tensor: Tensor) -> list[int]:
    """Strides, but for those that nothing steps along."""
    return [s for s, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def largest(found: Tensor, exact: Tensor) -> Tensor:
    return (found.double() - exact).abs().max()


def on_triton(op: Op, args: tuple[Any, ...]) -> Tensor:
    with ops.backend("triton"):
        return op(*args)


@pytest.mark.parametrize("case", HOSTILE, ids=str)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.usefixtures("guarded_outputs")
def test_it_is_the_reference_in_any_layout(case: Case, dtype: torch.dtype) -> None:
    op, args = OPS[case.op], case.args(dtype)
    actual, expected = on_triton(op, args), op.plain(*args)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert layout(actual) == layout(op._run_fake(*args))
    if expected.numel():
        exact = op.plain(*to_double(args))
        bound = BOUNDS[dtype] * exact.square().mean().sqrt() + 4 * largest(expected, exact)
        assert largest(actual, exact) <= bound
    if case.op != "group_norm_silu":  # which takes maps of two layouts, and no other
        assert_bitwise_equal(on_triton(op, spread(args, 1)), actual, "rows apart")
        if dtype == torch.float32:
            assert_bitwise_equal(on_triton(op, spread(args, 0)), actual, "strided")
