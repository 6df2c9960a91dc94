"""`fused_linear`: residual + act(LN(x) Wᵀ + b), the four products of a transformer block."""

from typing import Any

import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops import checks
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES
from marfast.reference import transformer


@op(backends=("triton", "cpu"))
def fused_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    residual: Tensor | None = None,
    gelu: bool = False,
    eps: float = 1e-6,
    packed: Tensor | None = None,
) -> Tensor:
    """A linear layer with what stands round it in a transformer block.

    Args:
        x: [R, K] float32 (float64, bfloat16, float16: plain PyTorch only).
        weight, bias: [J, K] and [J], x's dtype, bfloat16 or float16. With bfloat16, what enters the
            product is rounded to it, too; all else stays x's dtype.
        norm_weight, norm_bias: [K], of a LayerNorm over x's rows; both or none.
        residual: [R, J], added last.
        gelu: GELU (arXiv 1606.08415, not its tanh approximation) after the bias.
        eps: of the LayerNorm.
        packed: `pack_linear(weight, bias)`, to save packing them in each call.

    Returns:
        [R, J], x's dtype. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.
    """


@fused_linear.check
def _check(a: Args) -> None:
    rows, inputs = checks.first("x", a.x, "R, K", (*DTYPES, torch.float64))
    outputs = a.weight.shape[0] if a.weight.dim() else 0
    own, weights = (a.x.dtype,), (a.x.dtype, torch.bfloat16, torch.float16)
    if inputs == 0 or outputs == 0:
        raise ValueError(f"weight has shape {list(a.weight.shape)}; sizes from 1 are allowed")
    checks.like("weight", a.weight, "J, K", (outputs, inputs), weights, a.x)
    checks.like("bias", a.bias, "J", (outputs,), (a.weight.dtype,), a.x)
    if (a.norm_weight is None) != (a.norm_bias is None):
        raise ArgumentError("norm_weight and norm_bias", "both or none are needed")
    if a.norm_weight is not None:
        checks.like("norm_weight", a.norm_weight, "K", (inputs,), own, a.x)
        checks.like("norm_bias", a.norm_bias, "K", (inputs,), own, a.x)
    if a.residual is not None:
        checks.like("residual", a.residual, "R, J", (rows, outputs), own, a.x)
    checks.packed(a.packed, a.x)


@fused_linear.fake
def _fake(a: Args) -> Tensor:
    return torch.empty((len(a.x), len(a.weight)), dtype=a.x.dtype, device=a.x.device)


@fused_linear.reference
def _reference(a: Args) -> Tensor:
    result: Tensor = transformer.fused_linear(*a[:-1])  # all but packed
    return result


@fused_linear.example
def _example(draw: Draw) -> dict[str, Any]:
    """The first half of MAR-B's MLP (768 -> 3072) for 96 rows, with LayerNorm and GELU; dtype is
    the weight's."""
    rows, inputs, outputs = 96, 768, 3072
    return {
        "x": draw.normal(rows, inputs),
        "weight": draw.weight(outputs, inputs).to(draw.dtype),
        "bias": draw.weight(outputs).to(draw.dtype),
        "norm_weight": draw.weight(inputs) + 1,
        "norm_bias": draw.weight(inputs),
        "gelu": True,
    }
