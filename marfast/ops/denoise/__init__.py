"""`denoise`: the whole head once: MAR's (SimpleMLPAdaLN), or one of another spec."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.head import HeadShape, spec_of
from marfast.ops.op import Args, Draw, op
from marfast.ops.runtime import DTYPES
from marfast.reference import denoise as reference


@op(backends=("cuda", "triton", "cpu", "torch"))
def denoise(
    x: Tensor,
    t: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    packed: Tensor | None = None,
    spec: str = "",
) -> Tensor:
    """ε and the variance fraction v of noisy tokens, each at a timestep of its own.

    Args:
        x: [R, C] float32, bfloat16 or float16 (float64: plain PyTorch only), the noisy tokens.
        t: [R] int64 or float32, the timesteps, of the 1000 that the head was trained with, or
            what else it is told; [R, times] of a spec with several.
        cond: [R, D], x's dtype, the condition vectors z.
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order, or those of a
            `reference.Head` of the spec; x's dtype, bfloat16 or float16. With bfloat16, what enters
            a product is rounded to it, too; all else stays float32.
        packed: `ops.pack_head(weights, spec=spec)`, to save packing them in each call.
        spec: `str(reference.HeadSpec(...))`; empty: MAR's.

    Returns:
        [R, 2C], x's dtype: ε, then v; [R, C] of a spec without variance. docs/numerics.md has the
        order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: MAR (arXiv 2406.11838), section 3.2 and appendix; LTH14/mar's `SimpleMLPAdaLN.forward`.
    """


def out_shape(a: Args) -> tuple[int, int]:
    rows, channels = a.x.shape
    return rows, 2 * channels if spec_of(a).variance else channels


@denoise.check
def _check(a: Args) -> None:
    spec = spec_of(a)
    shape = HeadShape.of(a.weights, spec)
    rows, _ = checks.first("x", a.x, "R, C", (*DTYPES, torch.float64))
    checks.like("x", a.x, "R, C", (rows, shape.channels), (a.x.dtype,), a.x)
    told, letters = ((rows,), "R") if spec.times == 1 else ((rows, spec.times), "R, times")
    checks.like("t", a.t, letters, told, (torch.int64, torch.float32), a.x)
    checks.like("cond", a.cond, "R, D", (rows, shape.condition), (a.x.dtype,), a.x)
    first, allowed = a.weights[0], (a.x.dtype, torch.bfloat16, torch.float16)
    checks.like("weights[0]", first, "outputs, inputs", first.shape, allowed, a.x)
    checks.packed(a.packed, a.x)


@denoise.fake
def _fake(a: Args) -> Tensor:
    return torch.empty(out_shape(a), dtype=a.x.dtype, device=a.x.device)


@denoise.reference
def _reference(a: Args) -> Tensor:
    return reference.denoise(a.x, a.t, a.cond, a.weights, spec_of(a)).to(a.x.dtype)


@denoise.example
def _example(draw: Draw) -> dict[str, Any]:
    """6 rows of 16 channels, 2 blocks 96 wide; dtype is the weights'."""
    rows, shape = 6, HeadShape(16, condition=64, width=96, depth=2, frequencies=256, hidden=96)
    return {
        "x": draw.normal(rows, shape.channels),
        "t": draw.integers(1000, rows),
        "cond": draw.normal(rows, shape.condition),
        "weights": [draw.weight(*sizes).to(draw.dtype) for sizes in shape.expected()],
    }
