"""`adaln_mlp`: one residual block of the head, x + gate (W₂ SiLU(W₁ modulate(LN(x)) + b₁) + b₂)."""

from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES
from marfast.reference import denoise


@op(backends=("cuda", "triton", "cpu", "torch"))
def adaln_mlp(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float = 1e-6,
    packed: Tensor | None = None,
) -> Tensor:
    """A residual block of MAR's head, conditioned through adaptive LayerNorm.

    Args:
        x: [R, w] float32, bfloat16 or float16 (float64: plain PyTorch only).
        shift, scale, gate: [R, w], x's dtype, the three parts of the block's adaLN modulation in
            MAR's order.
        ln_weight, ln_bias: [w], x's dtype, of the LayerNorm.
        w1, b1, w2, b2: [w, w], [w], [w, w], [w], of the MLP: x's dtype, bfloat16 or float16. With
            bfloat16, what enters a product is rounded to it, too; all else stays float32.
        eps: of the LayerNorm.
        packed: `pack_adaln_mlp(w1, b1, w2, b2)`, to save packing them in each call.

    Returns:
        [R, w], x's dtype. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: Peebles & Xie 2023 (arXiv 2212.09748, section 3.2), as in the head of MAR
    (arXiv 2406.11838; LTH14/mar's `ResBlock`).
    """


@adaln_mlp.check
def _check(a: Args) -> None:
    rows, width = checks.first("x", a.x, "R, w", (*DTYPES, torch.float64))
    if width == 0:
        raise ValueError(f"x has shape [{rows}, 0]; its rows must have at least one element")
    own, weights = (a.x.dtype,), (a.x.dtype, torch.bfloat16, torch.float16)
    for name in ("shift", "scale", "gate"):
        checks.like(name, getattr(a, name), "R, w", (rows, width), own, a.x)
    for name in ("ln_weight", "ln_bias"):
        checks.like(name, getattr(a, name), "w", (width,), own, a.x)
    checks.like("w1", a.w1, "w, w", (width, width), weights, a.x)
    checks.like("w2", a.w2, "w, w", (width, width), (a.w1.dtype,), a.x)
    for name in ("b1", "b2"):
        checks.like(name, getattr(a, name), "w", (width,), (a.w1.dtype,), a.x)
    checks.packed(a.packed, a.x)


@adaln_mlp.fake
def _fake(a: Args) -> Tensor:
    return torch.empty(a.x.shape, dtype=a.x.dtype, device=a.x.device)


@adaln_mlp.reference
def _reference(a: Args) -> Tensor:
    inputs = (a.x, a.shift, a.scale, a.gate, a.ln_weight, a.ln_bias, a.w1, a.b1, a.w2, a.b2)
    return denoise.adaln_mlp(*inputs, eps=a.eps).to(a.x.dtype)


@adaln_mlp.example
def _example(draw: Draw) -> dict[str, Any]:
    """8 rows of a block of MAR-B's head (w = 1024); dtype is the MLP's."""
    rows, width = 8, 1024
    x, shift, scale, gate = draw.normal(4, rows, width)
    return {
        **{"x": x, "shift": shift, "scale": scale, "gate": gate},
        **{"ln_weight": draw.weight(width) + 1, "ln_bias": draw.weight(width)},
        **{"w1": draw.weight(width, width).to(draw.dtype), "b1": draw.weight(width).to(draw.dtype)},
        **{"w2": draw.weight(width, width).to(draw.dtype), "b2": draw.weight(width).to(draw.dtype)},
    }
