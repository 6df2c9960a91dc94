"""`group_norm_silu`: SiLU(GroupNorm(x)), what stands before each convolution of the autoencoder."""

from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, native, triton_backend
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import vae

CHUNK = 64  # positions whose moments are taken together (csrc/cpu/group_norm_silu.h)
_DTYPES = (*native.DTYPE_CODES, torch.float64)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int = 32,
    eps: float = 1e-6,
    silu: bool = True,
) -> Tensor:
    """SiLU(GroupNorm(x)), or GroupNorm(x) alone (arXiv 1803.08494).

    Args:
        x: [B, C, H, W] float32, bfloat16 or float16 (float64: plain PyTorch only), C a multiple of
            `groups`. The kernel takes channels_last; any other layout runs in plain PyTorch.
        weight, bias: [C], x's dtype.
        groups: of channels, each normalised by its own mean and variance.
        eps: added to the variance.
        silu: without it, the normalised values themselves.

    Returns:
        [B, C, H, W], x's dtype; channels_last where x is, else contiguous.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape, a device or a number of groups that is not allowed.
    """
    return _OP(x, weight, bias, groups, eps, silu)


def _check(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> None:
    _, channels, height, width = checks.first("x", x, "B, C, H, W", _DTYPES)
    if groups < 1 or channels == 0 or channels % groups:
        raise ValueError(f"groups: {groups}; allowed are the divisors of {channels}, x's channels")
    if height * width == 0:
        raise ValueError(f"x has shape {list(x.shape)}; it must have at least one position")
    checks.like("weight", weight, "C", (channels,), (x.dtype,), x)
    checks.like("bias", bias, "C", (channels,), (x.dtype,), x)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _fake(x: Tensor, *_: Any) -> Tensor:
    layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _reference(x: Tensor, *rest: Any) -> Tensor:
    layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    return vae.group_norm_silu(x, *rest).contiguous(memory_format=layout)


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """128 channels at 64 x 64 positions, channels_last."""
    channels, side = 128, 64

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=generator.device).to(device, dtype)

    x = draw(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    return x, draw(channels), draw(channels)


def _can_run_cpu(x: Tensor, *_: Any) -> Verdict:
    ok, reason = native.can_run({"x": x}, tuple(native.DTYPE_CODES))
    if ok and not _is_channels_last(x):
        return False, "x is not channels_last in memory"
    return ok, reason


def _run_cpu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> Tensor:
    images, channels, height, width = x.shape
    chunks, threads = -(-height * width // CHUNK), native.threads()
    weight, bias = weight.contiguous(), bias.contiguous()
    moments = native.empty(3, images, groups, chunks)
    group_moments = native.empty(2, images, channels)
    scratch = native.empty(threads, 2, channels)
    out = x.new_empty((images, height, width, channels))
    native.extension().group_norm_silu(
        out.data_ptr(),
        x.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        moments.data_ptr(),
        group_moments.data_ptr(),
        scratch.data_ptr(),
        images,
        height * width,
        channels,
        groups,
        chunks,
        threads,
        native.DTYPE_CODES[x.dtype],
        silu,
        eps,
    )
    return out.permute(0, 3, 1, 2)


def _can_run_triton(x: Tensor, *_: Any) -> Verdict:
    if x.shape[2] > 1 < x.shape[3] and x.stride(2) != x.shape[3] * x.stride(3):
        return False, "x's positions don't lie at one stride"
    return triton_backend.can_run({"x": x})


_OP = Op(
    "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups=32, float eps=1e-6, "
    "bool silu=True) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[
        triton_backend.backend("group_norm_silu", _can_run_triton),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
)
