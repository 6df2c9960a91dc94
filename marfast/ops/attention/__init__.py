"""`attention`: softmax(QKᵀ/√hd)V from a packed QKV projection."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from marfast.errors import ArgumentError
from marfast.ops import checks, transforms
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES, check_memory, short_dtype
from marfast.reference import transformer


@op(backends=("cuda", "triton", "cpu", "torch"))
def attention(qkv: Tensor, queries: Tensor | None = None, causal: bool = False) -> Tensor:
    """Multi-head self-attention, as a packed projection gives it and the next projection takes it.

    Args:
        qkv: [B, L, 3, H, hd] float32, bfloat16, float16 or float64: queries, keys and values of H
            heads.
        queries: [B, Lq] int64, the positions whose results are wanted (0 to L - 1); None for all.
            Others are an error on the CPU; on devices, which nobody waits for, their result is NaN.
        causal: whether a position attends to itself and those before it alone.

    Returns:
        [B, Lq, H·hd], qkv's dtype; Lq = L without `queries`.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape, device or position that is not allowed.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2. MAR's last decoder block needs the
    positions to predict alone.
    """


def wanted(a: Args) -> int:
    """Lq."""
    count: int = a.qkv.shape[1] if a.queries is None else a.queries.shape[1]
    return count


@attention.check
def _check(a: Args) -> None:
    qkv, queries = a.qkv, a.queries
    if qkv.dtype not in (*DTYPES, torch.float64):
        raise TypeError(
            f"qkv has dtype {short_dtype(qkv.dtype)}; "
            "it must be float32, bfloat16, float16 or float64"
        )
    if qkv.dim() != 5 or qkv.shape[2] != 3 or 0 in qkv.shape[3:]:
        raise ValueError(f"qkv has shape {list(qkv.shape)}; it must be [B, L, 3, H, hd]")
    if queries is not None:
        sizes = (qkv.shape[0], queries.shape[1] if queries.dim() == 2 else 0)
        checks.like("queries", queries, "B, Lq", sizes, (torch.int64,), qkv, "qkv")


@attention.check_values
def _check_values(a: Args) -> None:
    if a.queries is None or a.queries.numel() == 0:
        return
    check_memory(queries=a.queries)
    length = a.qkv.shape[1]
    for position in map(int, a.queries.aminmax()):
        if not 0 <= position < length:
            raise ArgumentError("queries", position, f"allowed are the positions 0 to {length - 1}")


@attention.fake
def _fake(a: Args) -> Tensor:
    batch, _, _, heads, head_dim = a.qkv.shape
    sizes = (batch, wanted(a), heads * head_dim)
    return torch.empty(sizes, dtype=a.qkv.dtype, device=a.qkv.device)


@attention.reference
def _reference(a: Args) -> Tensor:
    if transforms.anywhere():  # torch's fused kernels have a formula for backward alone
        with sdpa_kernel(SDPBackend.MATH):
            return at_positions(a, transformer.attention)
    return at_positions(a, transformer.attention)


def at_positions(a: Args, attend: Callable[..., Tensor]) -> Tensor:
    """attend(qkv, queries=, causal=) for queries that are positions, and NaN for the others."""
    if a.queries is None:
        return attend(a.qkv, queries=None, causal=a.causal)
    known = a.queries.clamp(0, a.qkv.shape[1] - 1)
    out = attend(a.qkv, queries=known, causal=a.causal)
    return out.masked_fill((known != a.queries)[..., None], math.nan)


@attention.example
def _example(draw: Draw) -> dict[str, Any]:
    """The last decoder block of MAR-B for 4 tokens to predict: 320 positions, 12 heads of 64."""
    qkv = draw.normal(2, 320, 3, 12, 64).to(draw.dtype)
    return {"qkv": qkv, "queries": draw.integers(320, 2, 4)}
