"""`layer_norm_modulate`: the defined order of operations, accuracy, hostile shapes and inputs."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from marfast.reference import denoise as head
from tests.helpers import assert_as_accurate, assert_bitwise_equal, lane_sum, on_every_isa

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROWS = (0, 1, 2, 3, 17, 129)
# Round a vector's 16 lanes and the reduction's 64; MAR's heads have 1024, 1280 and 1536.
WIDTHS = (1, 15, 16, 17, 63, 64, 65, 192, 1024, 1536)


def inputs(
    rows: int, width: int, *, dtype: torch.dtype = torch.float32, affine: bool = True, seed: int = 0
) -> tuple[Any, ...]:
    """x, shift, scale, weight, bias."""
    generator = torch.Generator().manual_seed(seed)
    x, shift, scale = torch.randn(3, rows, width, generator=generator).to(dtype)
    weight, bias = torch.randn(2, width, generator=generator).to(dtype)
    return x * 3 + 1, shift, scale, weight if affine else None, bias if affine else None


def defined(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """docs/numerics.md in PyTorch, operation by operation."""
    width = torch.tensor(float(x.shape[1]))
    m = lane_sum(x.float()) / width
    centred = x.float() - (m + lane_sum(x.float() - m) / width)
    variance = lane_sum(centred * centred) / width
    # By way of float64 the root is correctly rounded, whatever torch.sqrt is.
    y = centred * (1 / (variance + eps).double().sqrt().float())
    if weight is not None:
        y = y * weight.float()
    if bias is not None:
        y = y + bias.float()
    return (y * (1 + scale.float()) + shift.float()).to(x.dtype)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.usefixtures("needs_native", "guarded_outputs")
def test_bit_equal_to_the_definition(rows, width, dtype, affine):
    args = inputs(rows, width, dtype=dtype, affine=affine, seed=width)
    expected = defined(*args)
    for isa, actual in on_every_isa(ops.layer_norm_modulate, *args).items():
        assert_bitwise_equal(actual, expected, isa)


@pytest.mark.parametrize("given", [(True, False), (False, True)])
def test_weight_and_bias_are_independent(given, isa):
    x, shift, scale, weight, bias = inputs(3, 17)
    args = (x, shift, scale, weight if given[0] else None, bias if given[1] else None, 1e-5)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        assert_bitwise_equal(ops.layer_norm_modulate(*args), defined(*args))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [17, 192, 1024, 1536])
@pytest.mark.parametrize("affine", [False, True])
def test_error_against_float64(width, affine, dtype, needs_native):
    cases = [inputs(64, width, dtype=dtype, affine=affine, seed=seed) for seed in range(8)]
    with ops.backend("cpu"):
        assert_as_accurate(ops.layer_norm_modulate, head.layer_norm_modulate, cases)


def test_rows_far_from_zero_keep_their_accuracy(needs_native):
    """A variance from E[x²] - E[x]² would be all noise here."""
    cases = []
    for seed in range(8):
        x, *rest = inputs(16, 1024, seed=seed)
        cases.append((x + 3000, *rest))
    with ops.backend("cpu"):
        assert_as_accurate(ops.layer_norm_modulate, head.layer_norm_modulate, cases)


@pytest.mark.parametrize("value", [0.37, 20.3, -1000.1, 1e30])
@pytest.mark.parametrize("width", [7, 47, 1000, 1024, 16384])
def test_a_constant_row_is_0(width, value, isa):
    x = torch.full((2, width), value)
    zeros = torch.zeros(2, width)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        assert_bitwise_equal(ops.layer_norm_modulate(x, zeros, zeros), zeros)
        weight, bias = torch.eye(width)[:3], torch.zeros(3)
        norm = torch.ones(width), torch.zeros(width)
        assert_bitwise_equal(ops.fused_linear(x, weight, bias, *norm), torch.zeros(2, 3))


@pytest.mark.parametrize(("mean", "spread"), [(30, 1), (1000, 1e-3), (10, 1e-4), (1e4, 1)])
def test_rows_that_hardly_vary_keep_their_accuracy(mean, spread, needs_native):
    cases = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x = mean + spread * torch.randn(8, 1024, generator=generator)
        cases.append((x, torch.zeros_like(x), torch.zeros_like(x)))
    with ops.backend("cpu"):
        assert_as_accurate(ops.layer_norm_modulate, head.layer_norm_modulate, cases)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_rounded_to_nearest_even(dtype, isa):
    """In a constant row LN(x) is 0, so the result is bias (1 + scale) + shift, rounded once: here
    over ties, subnormals and the edge of infinity."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(-(2**15), 2**15, (3, 4, 4099), generator=generator).to(torch.int16)
    bias, scale, shift = raw.view(dtype)
    bias = bias[0]
    shift[1:] = (torch.rand(3, 4099, generator=generator) * 1e-5).to(dtype)
    scale[2:] = 0.5
    x = torch.ones(4, 4099, dtype=dtype)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = ops.layer_norm_modulate(x, shift, scale, None, bias)
    expected = ((0 + bias.float()) * (1 + scale.float()) + shift.float()).to(dtype)
    assert actual.isinf().any()
    assert actual.isnan().any()
    assert_bitwise_equal(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-42])
def test_extreme_inputs_stay_in_their_row(value, dtype, isa):
    args = inputs(3, 65, dtype=dtype)
    args[0][1, 64] = value
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = ops.layer_norm_modulate(*args)
    assert_bitwise_equal(actual, defined(*args))
    assert actual[[0, 2]].isfinite().all()


def test_a_row_that_overflows_float16_squares_is_finite(needs_native):
    args = inputs(3, 64, dtype=torch.float16)
    args[0][:] = torch.linspace(-6e4, 6e4, 64).half()
    assert ops.layer_norm_modulate(*args).isfinite().all()


def test_subnormal_rows(isa):
    args = (inputs(3, 64)[0] * 1e-40, *inputs(3, 64)[1:], 0.0)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        assert_bitwise_equal(ops.layer_norm_modulate(*args), defined(*args))


def test_any_split_of_the_batch_gives_the_same_bits(needs_native):
    x, shift, scale, weight, bias = inputs(23, 192)
    whole = ops.layer_norm_modulate(x, shift, scale, weight, bias)
    for part in (slice(0, 1), slice(1, 8), slice(8, 23)):
        actual = ops.layer_norm_modulate(x[part], shift[part], scale[part], weight, bias)
        assert_bitwise_equal(actual, whole[part])


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_do_not_change_the_bits(dtype, needs_native):
    args = inputs(7, 33, dtype=dtype)
    expected = ops.layer_norm_modulate(*args)

    def padded(t: Tensor) -> Tensor:
        return torch.cat([t, t], dim=-1)[..., : t.shape[-1]]

    def transposed(t: Tensor) -> Tensor:
        return t.t().contiguous().t() if t.dim() == 2 else t

    def strided(t: Tensor) -> Tensor:
        return torch.stack([t, t, t], dim=-1)[..., 1]

    for layout in (padded, transposed, strided):
        assert_bitwise_equal(ops.layer_norm_modulate(*map(layout, args)), expected)
    one = args[1][:1].expand(7, -1)
    assert_bitwise_equal(
        ops.layer_norm_modulate(args[0], one, one, *args[3:]),
        ops.layer_norm_modulate(args[0], one.contiguous(), one.contiguous(), *args[3:]),
    )


def replaced(place: int, tensor: Any) -> tuple[Any, ...]:
    args: list[Any] = list(inputs(4, 16))
    args[place] = tensor
    return tuple(args)


ERRORS = [
    (replaced(0, torch.zeros(4, 16).int()), TypeError, "x has dtype int32; it must be float32"),
    (replaced(0, torch.zeros(16)), ValueError, "x has shape [16]; it must be [R, w]"),
    (tuple(torch.zeros(4, 0) for _ in range(3)), ValueError, "x has shape [4, 0]; its rows"),
    (replaced(1, torch.zeros(1, 16)), ValueError, "shift has shape [1, 16]; it must be [R, w]"),
    (replaced(2, torch.zeros(4, 15)), ValueError, "scale has shape [4, 15]; it must be [R, w]"),
    (replaced(2, torch.zeros(4, 16).half()), TypeError, "scale has dtype float16; it must be"),
    (replaced(3, torch.zeros(15)), ValueError, "weight has shape [15]; it must be [w] = [16]"),
    (replaced(4, torch.zeros(16, device="meta")), ValueError, "bias is on meta; it must be on cpu"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    pattern = re.escape(message)
    with pytest.raises(kind, match=pattern):
        ops.layer_norm_modulate(*args)
    with pytest.raises(kind, match=pattern):
        torch.ops.marfast.layer_norm_modulate(*args)
    with ops.backend("reference"), pytest.raises(kind, match=pattern):
        ops.layer_norm_modulate(*args)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype, affine, requires_grad):
    args = inputs(3, 17, dtype=dtype, affine=affine)
    args = tuple(a if a is None else a.clone().requires_grad_(requires_grad) for a in args)
    torch.library.opcheck(torch.ops.marfast.layer_norm_modulate.default, args)


@pytest.mark.parametrize("affine", [False, True])
def test_gradients_in_float64(affine):
    args = [a.double().requires_grad_() for a in inputs(3, 5, affine=affine) if a is not None]
    assert torch.autograd.gradcheck(ops.layer_norm_modulate, args)
    assert torch.autograd.gradgradcheck(ops.layer_norm_modulate, args)


def test_gradients_are_the_references_bit_for_bit():
    args = [a.requires_grad_() for a in inputs(9, 16)]
    weight = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    actual = torch.autograd.grad((ops.layer_norm_modulate(*args) * weight).sum(), args)
    expected = torch.autograd.grad((head.layer_norm_modulate(*args) * weight).sum(), args)
    for a, e in zip(actual, expected, strict=True):
        assert_bitwise_equal(a, e)


def test_the_example_runs_on_the_cpu_backend(needs_native):
    op = OPS["layer_norm_modulate"]
    for dtype in DTYPES:
        args = op.example_args(dtype)
        assert ops.which("layer_norm_modulate", *args) == "cpu"
