"""`group_norm_silu`: the defined order of operations, accuracy, hostile shapes and inputs."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from marfast.reference import vae
from marfast.verifying.compare import ulp_distance
from tests.helpers import (
    assert_as_accurate,
    assert_bitwise_equal,
    lane_sum,
    on_every_isa,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# channels, groups: round a vector's 16 lanes and the eight that are summed at a time; KL-16's
CHANNELS = ((1, 1), (15, 3), (16, 16), (17, 1), (63, 7), (127, 1), (129, 3), (128, 32), (256, 32))
# round a chunk's 64 positions, and 64 chunks
SIDES = ((1, 1), (9, 7), (8, 8), (5, 13), (4161, 1))


def inputs(
    images: int,
    channels: int,
    height: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """x (channels_last), weight, bias."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, height, width, channels, generator=generator).to(dtype)
    weight, bias = torch.randn(2, channels, generator=generator).to(dtype)
    return (x * 3 + 1).permute(0, 3, 1, 2), weight, bias


def total(values: Tensor, groups: int) -> Tensor:
    """Position after position, then channel after channel: [B, n, C] -> [B, G]."""
    of_channels = values.new_zeros(values.shape[0], values.shape[2])
    for position in values.unbind(1):
        of_channels = of_channels + position
    of_groups = values.new_zeros(values.shape[0], groups)
    for channel in of_channels.unflatten(1, (groups, -1)).unbind(2):
        of_groups = of_groups + channel
    return of_groups


def defined(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float = 1e-6) -> Tensor:
    """docs/numerics.md in PyTorch, operation by operation, without SiLU."""
    images, channels, height, width = x.shape
    values = x.float().permute(0, 2, 3, 1).flatten(1, 2)  # [B, P, C]
    of_group = channels // groups
    counts, sums, squares = [], [], []
    for chunk in values.split(64, dim=1):
        count = torch.full((images, groups), float(chunk.shape[1] * of_group))
        chunk_sum = total(chunk, groups)
        centred = chunk - (chunk_sum / count).repeat_interleave(of_group, dim=1)[:, None]
        counts.append(count)
        sums.append(chunk_sum)
        squares.append(total(centred * centred, groups))
    n, s, q = (torch.stack(part, dim=2).flatten(0, 1) for part in (counts, sums, squares))
    everything = torch.tensor(float(height * width * of_group))
    mean = lane_sum(s) / everything
    off = s / n - mean
    variance = lane_sum(q + n * (off * off)) / everything
    # By way of float64 the root is correctly rounded, whatever torch.sqrt is.
    rstd = 1 / (variance + eps).double().sqrt().float()

    def at_channels(moment: Tensor) -> Tensor:
        return moment.view(images, groups).repeat_interleave(of_group, dim=1)[:, None]

    y = (values - at_channels(mean)) * at_channels(rstd) * weight.float() + bias.float()
    return y.to(x.dtype).view(images, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize(("channels", "groups"), CHANNELS)
@pytest.mark.usefixtures("needs_native", "guarded_outputs")
def test_bit_equal_to_the_definition(channels, groups, side, dtype):
    if side[0] > 1000 and channels > 20:
        side = (66, 1)  # the number of chunks and of channels matter on their own
    args = inputs(2, channels, *side, dtype=dtype, seed=channels)
    expected = defined(*args, groups)
    for isa, actual in on_every_isa(ops.group_norm_silu, *args, groups, 1e-6, False).items():
        assert_bitwise_equal(actual, expected, isa)


def test_no_image_is_no_work(isa):
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        assert ops.group_norm_silu(*inputs(0, 64, 3, 3)).shape == (0, 64, 3, 3)


@pytest.mark.parametrize("channels", [32, 96])
def test_silu_of_what_is_normalised(channels, needs_native):
    """The same bits on every instruction set, and 2 ULP from the exact SiLU of the same values; 0
    where exp(-v) is infinite."""
    x, weight, bias = inputs(2, channels, 9, 9)
    args = (x, weight * 20, bias)
    results = on_every_isa(ops.group_norm_silu, *args)
    silu = results["portable"]
    for isa, actual in results.items():
        assert_bitwise_equal(actual, silu, isa)
    with ops.backend("cpu"):
        v = ops.group_norm_silu(*args, silu=False).double()
    finite = v > -88.72
    assert 0 < finite.sum() < v.numel()
    exact = (v * torch.sigmoid(v)).float()
    assert ulp_distance(silu, exact)[finite].max() <= 2
    assert silu[~finite].abs().max() == 0


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "side"), [(32, 5), (128, 64), (512, 16)])
def test_error_against_float64(channels, side, dtype, silu, needs_native):
    def with_kernel(*args: Any) -> Tensor:
        return ops.group_norm_silu(*args, silu=silu)

    def reference(*args: Any) -> Tensor:
        return vae.group_norm_silu(*args, silu=silu)

    cases = [inputs(1, channels, side, side, dtype=dtype, seed=seed) for seed in range(8)]
    with ops.backend("cpu"):
        assert_as_accurate(with_kernel, reference, cases)


def test_images_far_from_zero_keep_their_accuracy(needs_native):
    """A variance from E[x²] - E[x]² would be all noise here, in a chunk and over the chunks."""
    cases = []
    for seed in range(8):
        x, *rest = inputs(1, 32, 40, 40, seed=seed)
        cases.append((x + 3000 + torch.linspace(0, 50, 40), *rest))
    with ops.backend("cpu"):
        assert_as_accurate(ops.group_norm_silu, vae.group_norm_silu, cases)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-42])
def test_extreme_inputs_stay_in_their_group(value, isa):
    x, weight, bias = inputs(2, 64, 9, 9)
    x[1, 5, 8, 8] = value
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = ops.group_norm_silu(x, weight, bias, 32, 1e-6, False)
    assert_bitwise_equal(actual, defined(x, weight, bias, 32))
    rest = [channel for channel in range(64) if channel not in (4, 5)]
    assert actual[0].isfinite().all()
    assert actual[1, rest].isfinite().all()


def test_a_constant_image_is_its_bias(isa):
    x, weight, bias = inputs(1, 64, 9, 9)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = ops.group_norm_silu(torch.ones_like(x), weight, bias, silu=False)
    assert_bitwise_equal(actual, bias[None, :, None, None].expand_as(x).contiguous())


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(threads, needs_native):
    args = inputs(3, 96, 20, 10)
    expected = ops.group_norm_silu(*args)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_bitwise_equal(ops.group_norm_silu(*args), expected)
    finally:
        torch.set_num_threads(before)


def test_any_split_of_the_batch_gives_the_same_bits(needs_native):
    x, weight, bias = inputs(5, 64, 9, 8)
    whole = ops.group_norm_silu(x, weight, bias)
    for part in (slice(0, 1), slice(1, 5)):
        assert_bitwise_equal(ops.group_norm_silu(x[part], weight, bias), whole[part])


def test_the_layout_stays(needs_native):
    """channels_last by the kernel; any other layout in plain PyTorch, to a contiguous result."""
    x, weight, bias = inputs(2, 64, 5, 6)
    last = ops.group_norm_silu(x, weight, bias)
    assert ops.which("group_norm_silu", x, weight, bias) == "cpu"
    assert last.is_contiguous(memory_format=torch.channels_last)
    for other in (x.contiguous(), x.contiguous().transpose(2, 3).contiguous().transpose(2, 3)):
        assert ops.which("group_norm_silu", other, weight, bias) == "torch"
        actual = ops.group_norm_silu(other, weight, bias)
        assert actual.is_contiguous()
        torch.testing.assert_close(actual, last.contiguous())
    with ops.backend("cpu"), pytest.raises(ops.BackendUnavailable, match="not channels_last"):
        ops.group_norm_silu(x.contiguous(), weight, bias)


def test_weight_and_bias_may_have_strides(needs_native):
    x, weight, bias = inputs(1, 64, 3, 3)
    spread = torch.stack([weight, bias], dim=1)
    actual = ops.group_norm_silu(x, spread[:, 0], spread[:, 1])
    assert_bitwise_equal(actual, ops.group_norm_silu(x, weight, bias))


def replaced(place: int, value: Any) -> tuple[Any, ...]:
    args = [*inputs(2, 64, 3, 3), 32]
    args[place] = value
    return tuple(args)


ERRORS = [
    (replaced(0, torch.zeros(64, 3)), ValueError, "x has shape [64, 3]; it must be [B, C, H, W]"),
    (replaced(0, torch.zeros(2, 64, 0, 3)), ValueError, "it must have at least one position"),
    (replaced(0, torch.zeros(2, 64, 3, 3).int()), TypeError, "x has dtype int32; it must be"),
    (replaced(1, torch.zeros(63)), ValueError, "weight has shape [63]; it must be [C] = [64]"),
    (replaced(1, torch.zeros(64).half()), TypeError, "weight has dtype float16; it must be"),
    (replaced(2, torch.zeros(64, device="meta")), ValueError, "bias is on meta; it must be on"),
    (replaced(3, 0), ValueError, "groups: 0; allowed are the divisors of 64, x's channels"),
    (replaced(3, 24), ValueError, "groups: 24; allowed are the divisors of 64, x's channels"),
    (replaced(3, 128), ValueError, "groups: 128; allowed are the divisors of 64, x's channels"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:30] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    for op in (ops.group_norm_silu, torch.ops.marfast.group_norm_silu):
        with pytest.raises(kind, match=re.escape(message)):
            op(*args)


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype, contiguous):
    x, weight, bias = inputs(2, 64, 3, 5, dtype=dtype)
    x = x.contiguous() if contiguous else x
    args = [a.clone().requires_grad_() for a in (x, weight, bias)]
    torch.library.opcheck(torch.ops.marfast.group_norm_silu.default, args)


@pytest.mark.parametrize("silu", [False, True])
def test_gradients_in_float64(silu):
    args = [a.double().requires_grad_() for a in inputs(1, 6, 2, 3)]
    assert torch.autograd.gradcheck(lambda *a: ops.group_norm_silu(*a, 3, 1e-6, silu), args)


def test_gradients_are_the_references_bit_for_bit():
    args = [a.requires_grad_() for a in inputs(2, 64, 3, 3)]
    weight = torch.randn(2, 64, 3, 3, generator=torch.Generator().manual_seed(1))
    actual = torch.autograd.grad((ops.group_norm_silu(*args) * weight).sum(), args)
    expected = torch.autograd.grad((vae.group_norm_silu(*args) * weight).sum(), args)
    for a, e in zip(actual, expected, strict=True):
        assert_bitwise_equal(a, e)


def test_the_example_runs_on_the_cpu_backend(needs_native):
    op = OPS["group_norm_silu"]
    for dtype in DTYPES:
        args = op.example_args(dtype)
        assert ops.which("group_norm_silu", *args) == "cpu"
