"""`layer_norm_modulate`: LayerNorm(x) (1 + scale) + shift, the LayerNorm affine or not."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES
from marfast.reference import denoise


class Norm(NamedTuple):
    """What becomes of rows on their way into a product: (LN(x) weight + bias) (1 + scale) + shift.
    Parts may be missing; shift and scale both or none. `kind` is another norm's in LN's place
    (marfast/reference/head_spec.py)."""

    shift: Tensor | None = None
    scale: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-6
    kind: str = "layer"


@op(backends=("cuda", "triton", "cpu"))
def layer_norm_modulate(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """LayerNorm over the last dimension, then the modulation of adaLN.

    Args:
        x: [R, w] float32, bfloat16 or float16 (float64: plain PyTorch only).
        shift, scale: [R, w], x's dtype; expanded rows (stride 0) are read in place.
        weight, bias: [w], x's dtype, or None.
        eps: added to the variance.

    Returns:
        [R, w], x's dtype, computed in float32. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: Peebles & Xie 2023 (arXiv 2212.09748), as in the head of MAR (arXiv 2406.11838).
    """


@layer_norm_modulate.check
def _check(a: Args) -> None:
    rows, width = checks.first("x", a.x, "R, w", (*DTYPES, torch.float64))
    if width == 0:
        raise ValueError(f"x has shape [{rows}, 0]; its rows must have at least one element")
    own = (a.x.dtype,)
    checks.like("shift", a.shift, "R, w", (rows, width), own, a.x)
    checks.like("scale", a.scale, "R, w", (rows, width), own, a.x)
    if a.weight is not None:
        checks.like("weight", a.weight, "w", (width,), own, a.x)
    if a.bias is not None:
        checks.like("bias", a.bias, "w", (width,), own, a.x)


@layer_norm_modulate.fake
def _fake(a: Args) -> Tensor:
    return torch.empty(a.x.shape, dtype=a.x.dtype, device=a.x.device)


@layer_norm_modulate.reference
def _reference(a: Args) -> Tensor:
    return denoise.layer_norm_modulate(a.x, a.shift, a.scale, a.weight, a.bias, a.eps)


@layer_norm_modulate.example
def _example(draw: Draw) -> dict[str, Any]:
    """128 rows of MAR-B's head (w = 1024), affine."""
    rows, width = 128, 1024
    x, shift, scale = draw.normal(3, rows, width).to(draw.dtype)
    weight, bias = draw.normal(2, width).to(draw.dtype)
    return {"x": x, "shift": shift, "scale": scale, "weight": weight, "bias": bias}
