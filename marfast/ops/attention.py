"""`attention`: softmax(QKᵀ/√hd)V from a packed QKV projection."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.ops import checks, cuda, native, triton_backend
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import transformer


def attention(qkv: Tensor, queries: Tensor | None = None, causal: bool = False) -> Tensor:
    """Multi-head self-attention, as a packed projection gives it and the next projection takes it.

    Args:
        qkv: [B, L, 3, H, hd] float32, bfloat16, float16 or float64: queries, keys and values of H
            heads.
        queries: [B, Lq] int64, the positions whose results are wanted (0 to L - 1); None for all.
        causal: whether a position attends to itself and those before it alone.

    Returns:
        [B, Lq, H·hd], qkv's dtype; Lq = L without `queries`.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2. MAR's last decoder block needs the
    positions to predict alone.
    """
    return _OP(qkv, queries, causal)


def _check(qkv: Tensor, queries: Tensor | None, causal: bool) -> None:
    if qkv.dtype not in (*native.WEIGHTS, torch.float64):
        raise TypeError(
            f"qkv has dtype {checks.short_dtype(qkv.dtype)}; "
            "it must be float32, bfloat16, float16 or float64"
        )
    if qkv.dim() != 5 or qkv.shape[2] != 3 or 0 in qkv.shape[3:]:
        raise ValueError(f"qkv has shape {list(qkv.shape)}; it must be [B, L, 3, H, hd]")
    if queries is not None:
        count = queries.shape[1] if queries.dim() == 2 else 0
        checks.like(
            *("queries", queries, "B, Lq", (qkv.shape[0], count), (torch.int64,), qkv), "qkv"
        )


def _fake(qkv: Tensor, queries: Tensor | None, causal: bool) -> Tensor:
    batch, length, _, heads, head_dim = qkv.shape
    wanted = length if queries is None else queries.shape[1]
    return torch.empty((batch, wanted, heads * head_dim), dtype=qkv.dtype, device=qkv.device)


def _reference(qkv: Tensor, queries: Tensor | None = None, causal: bool = False) -> Tensor:
    return transformer.attention(qkv, queries=queries, causal=causal)


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """The last decoder block of MAR-B for 4 tokens to predict: 320 positions, 12 heads of 64."""
    sizes = (2, 320, 3, 12, 64)
    qkv = torch.randn(sizes, generator=generator, device=generator.device).to(device, dtype)
    queries = torch.randint(0, 320, (2, 4), generator=generator, device=generator.device)
    return (qkv, queries.to(device))


def _can_run_cpu(qkv: Tensor, queries: Tensor | None, causal: bool) -> Verdict:
    if qkv.device.type != "cpu":
        return False, f"qkv is on {qkv.device}"
    return True, ""


def _run_cpu(qkv: Tensor, queries: Tensor | None, causal: bool) -> Tensor:
    """PyTorch's own kernel, for the wanted queries alone."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mask = None
    if queries is not None:
        rows = torch.arange(len(qkv), device=qkv.device)[:, None]
        q = qkv[rows, queries, 0].transpose(1, 2)
        if causal:
            positions = torch.arange(qkv.shape[1], device=qkv.device)
            mask = (positions <= queries[..., None])[:, None]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None)
    return out.transpose(1, 2).flatten(2)


def _can_run_triton(qkv: Tensor, queries: Tensor | None, causal: bool) -> Verdict:
    if qkv.shape[-1] > 128:
        return False, f"qkv has heads of {qkv.shape[-1]}; the kernel takes 128 at most"
    return triton_backend.can_run({"qkv": qkv})


def _can_run_cuda(qkv: Tensor, queries: Tensor | None, causal: bool) -> Verdict:
    batch, length, _, heads, head_dim = qkv.shape
    if head_dim > 128:
        return False, f"qkv has heads of {head_dim}; the kernel takes 128 at most"
    wanted = length if queries is None else queries.shape[1]
    if max(length, batch * heads * wanted) >= 2**31:
        return False, "there are 2^31 positions or queries of all heads, or more"
    return cuda.can_run({"qkv": qkv}, tuple(native.DTYPE_CODES))


def _run_cuda(qkv: Tensor, queries: Tensor | None, causal: bool) -> Tensor:
    batch, length, _, heads, head_dim = qkv.shape
    wanted = length if queries is None else queries.shape[1]
    out = qkv.new_empty((batch, wanted, heads * head_dim))
    qkv = qkv if qkv.stride(-1) == 1 else qkv.contiguous()
    queries = None if queries is None else queries.contiguous()
    cuda.call(
        *("attention", qkv.device, out.data_ptr(), qkv.data_ptr()),
        0 if queries is None else queries.data_ptr(),
        *(batch, length, wanted, heads, head_dim),
        *qkv.stride()[:4],
        cuda.code(qkv.dtype),
        causal,
        head_dim**-0.5,
    )
    return out


_OP = Op(
    "attention(Tensor qkv, Tensor? queries=None, bool causal=False) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[
        Backend("cuda", _can_run_cuda, _run_cuda, on_request=True),
        triton_backend.backend("attention", _can_run_triton),
        Backend("cpu", _can_run_cpu, _run_cpu, own_kernel=False),
    ],
)
