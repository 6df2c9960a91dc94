"""`group_norm_silu`: SiLU(GroupNorm(x)), what stands before each convolution of the autoencoder."""

from typing import Any

import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops import checks
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES
from marfast.reference import vae


@op(backends=("triton", "cpu"))
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


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


@group_norm_silu.check
def _check(a: Args) -> None:
    dtypes = (*DTYPES, torch.float64)
    _, channels, height, width = checks.first("x", a.x, "B, C, H, W", dtypes)
    if a.groups < 1 or channels == 0 or channels % a.groups:
        allowed = f"allowed are the divisors of {channels}, x's channels"
        raise ArgumentError("groups", a.groups, allowed)
    if height * width == 0:
        raise ValueError(f"x has shape {list(a.x.shape)}; it must have at least one position")
    checks.like("weight", a.weight, "C", (channels,), (a.x.dtype,), a.x)
    checks.like("bias", a.bias, "C", (channels,), (a.x.dtype,), a.x)


@group_norm_silu.fake
def _fake(a: Args) -> Tensor:
    x = a.x
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))


@group_norm_silu.reference
def _reference(a: Args) -> Tensor:
    result = vae.group_norm_silu(a.x, a.weight, a.bias, a.groups, a.eps, a.silu)
    return result.contiguous(memory_format=_layout(a.x))


@group_norm_silu.example
def _example(draw: Draw) -> dict[str, Any]:
    """128 channels at 64 x 64 positions, channels_last."""
    channels, side = 128, 64
    x = draw.normal(1, channels, side, side).to(draw.dtype)
    weight, bias = draw.normal(2, channels).to(draw.dtype)
    return {"x": x.contiguous(memory_format=torch.channels_last), "weight": weight, "bias": bias}
