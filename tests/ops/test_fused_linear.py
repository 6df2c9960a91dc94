"""`fused_linear`: the same bits everywhere, accuracy, hostile shapes and inputs."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.runtime import cpu
from marfast.reference import transformer
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa, with_defined_bits

pytestmark = pytest.mark.usefixtures("needs_native")

# A tile has up to 14 rows, sums are kept of 192; panels are 32 outputs, blocks of k 256.
SIZES = [
    (0, 16, 16),
    (1, 1, 1),
    (2, 15, 33),
    (3, 257, 31),
    (17, 64, 32),
    (57, 33, 65),
    (129, 768, 64),
    (200, 100, 40),
    (400, 259, 33),
]


def inputs(
    rows: int,
    width: int,
    outputs: int,
    *,
    norm: bool = True,
    residual: bool = True,
    gelu: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Any, ...]:
    """All arguments up to `eps`; dtype is the weight's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    vectors = (draw(width) + 1, draw(width))
    return (
        draw(rows, width) * 2 + 0.5,
        (draw(outputs, width) * width**-0.5).to(dtype),
        draw(outputs).to(dtype),
        *(vectors if norm else (None, None)),
        draw(rows, outputs) if residual else None,
        gelu,
        1e-6,
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("guarded_outputs")
def test_every_instruction_set_and_thread_count_gives_the_same_bits(
    sizes, norm, residual, gelu, dtype
):
    args = inputs(*sizes, norm=norm, residual=residual, gelu=gelu, dtype=dtype)
    results = on_every_isa(ops.fused_linear, *args)
    bound = 1e-4 if dtype == torch.float32 else 0.1
    for actual in results.values():
        expected = transformer.fused_linear(*args)
        torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)
    for isa, actual in with_defined_bits(results, dtype).items():
        assert_bitwise_equal(actual, results["portable"], isa)
    expected = ops.fused_linear(*args)
    try:
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            assert_bitwise_equal(ops.fused_linear(*args), expected, f"{threads} threads")
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("width", [24, 768, 1280])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_against_float64(width, norm, gelu, dtype):
    cases = [
        inputs(20, width, 64, norm=norm, gelu=gelu, dtype=dtype, seed=seed) for seed in range(8)
    ]
    assert_as_accurate(ops.fused_linear, transformer.fused_linear, cases)


def gelu_of(values: Tensor, isa: str) -> Tensor:
    """The op reduced to its GELU: weight and bias are 1 and 0."""
    with cpu.cpu_isa(isa):
        return ops.fused_linear(
            values[:, None], torch.ones(1, 1), torch.zeros(1), gelu=True
        ).flatten()


def test_gelu_over_the_whole_range(isa):
    values = torch.cat([torch.linspace(-20, 20, 400_001), torch.tensor([0.0, 1e-40, 1e30, -1e30])])
    exact = values.double() * torch.special.ndtr(values.double())
    error = (gelu_of(values, isa).double() - exact).abs()
    assert (error <= 4e-8 + 1.3e-7 * exact.abs()).all(), error.max()


def test_gelu_of_what_is_not_finite(isa):
    positive, negative, nan = gelu_of(torch.tensor([math.inf, -math.inf, math.nan]), isa)
    assert positive == math.inf
    assert negative == 0
    assert nan.isnan()


def test_any_split_of_the_rows_gives_the_same_bits():
    x, weight, bias, norm_weight, norm_bias, residual, *rest = inputs(130, 96, 40)
    whole = ops.fused_linear(x, weight, bias, norm_weight, norm_bias, residual, *rest)
    for part in (slice(0, 1), slice(1, 60), slice(60, 130)):
        actual = ops.fused_linear(
            x[part], weight, bias, norm_weight, norm_bias, residual[part], *rest
        )
        assert_bitwise_equal(actual, whole[part])


def test_packing_ahead_and_layouts_change_nothing():
    args = inputs(9, 40, 50)
    expected = ops.fused_linear(*args)
    assert_bitwise_equal(ops.fused_linear(*args, ops.pack_linear(args[1], args[2])), expected)

    def strided(value: Any) -> Any:
        return torch.stack([value, value], -1)[..., 0] if isinstance(value, Tensor) else value

    assert_bitwise_equal(ops.fused_linear(*map(strided, args)), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_extreme_inputs_stay_in_their_row(value):
    args = inputs(5, 40, 50)
    expected = ops.fused_linear(*args)
    args[0][2, 7] = value
    actual = ops.fused_linear(*args)
    assert_bitwise_equal(actual[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
    assert torch.equal(actual[2].isnan(), transformer.fused_linear(*args)[2].isnan())


@pytest.mark.parametrize("norm", [False, True])
def test_gradients(norm):
    args = [
        arg.double().requires_grad_() if isinstance(arg, Tensor) else arg
        for arg in inputs(3, 5, 4, norm=norm)
    ]
    assert torch.autograd.gradcheck(ops.fused_linear, args)


def test_the_callers_default_dtype_does_not_matter():
    args = inputs(20, 40, 50)
    expected = ops.fused_linear(*args)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            packed = ops.pack_linear(args[1], args[2])
            actual = ops.fused_linear(*args)
        assert_bitwise_equal(ops.fused_linear(*args, packed), expected)
        assert_bitwise_equal(actual, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_pack_linear_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"weight has shape \[4\]"):
        ops.pack_linear(torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"bias has shape \[1\]"):
        ops.pack_linear(torch.zeros(4, 3), torch.zeros(1))


def test_opcheck():
    torch.library.opcheck(torch.ops.marfast.fused_linear.default, inputs(3, 5, 4))


def replaced(place: int, value: Any) -> tuple[Any, ...]:
    args = list(inputs(4, 16, 8))
    args[place] = value
    return tuple(args)


ERRORS = [
    (replaced(0, torch.zeros(16)), ValueError, "x has shape [16]; it must be [R, K]"),
    (replaced(0, torch.zeros(4, 16).int()), TypeError, "x has dtype int32"),
    (replaced(1, torch.zeros(8, 15)), ValueError, "weight has shape [8, 15]"),
    (replaced(1, torch.zeros(0, 16)), ValueError, "weight has shape [0, 16]"),
    (replaced(2, torch.zeros(7)), ValueError, "bias has shape [7]"),
    (replaced(3, None), ValueError, "norm_weight and norm_bias"),
    (replaced(4, torch.zeros(15)), ValueError, "norm_bias has shape [15]"),
    (replaced(5, torch.zeros(3, 8)), ValueError, "residual has shape [3, 8]"),
    (replaced(5, torch.zeros(4, 8).half()), TypeError, "residual has dtype float16"),
    (
        (*inputs(4, 16, 8), torch.zeros(5)),
        ValueError,
        "packed: it is not what ops.pack_linear returns",
    ),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    pattern = re.escape(message)
    with pytest.raises(kind, match=pattern):
        ops.fused_linear(*args)
    with pytest.raises(kind, match=pattern):
        torch.ops.marfast.fused_linear(*args)
