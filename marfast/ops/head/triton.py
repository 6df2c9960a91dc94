"""The head's launches by Triton: `fused_linear`, `ddpm_step`, and what sums time and condition.

    out[p] = SiLU(T[p / group] + c[p % period])           p: pairs of a step and a row

`silu_sum_kernel` is elementwise: ELEMENTS numbers a program, all pairs in a row. Bytes moved: w
numbers of out a pair, for T and c stay in cache; the products that follow move 3 d + 2 times as
many.
"""

import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.ddpm_step.triton import launch as launch_step
from marfast.ops.fused_linear.triton import launch as launch_linear
from marfast.ops.head import spec_of
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton_functions import operand, silu
from marfast.reference.head_weights import Layer


@triton.jit(do_not_specialize=["group", "period"])
def silu_sum_kernel(
    p_out,  # [P, w], a factor of products
    p_time,  # [P / group, w]
    p_cond,  # [period, w]
    group,
    period,
    width,
    BLOCK: tl.constexpr,
):
    pair = tl.program_id(0)
    o_width = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    m_width = o_width < width
    o_time = (pair // group).to(tl.int64) * width + o_width
    o_cond = (pair % period).to(tl.int64) * width + o_width
    b_sum = tl.load(p_time + o_time, mask=m_width, other=0.0)  # [BLOCK]
    b_sum += tl.load(p_cond + o_cond, mask=m_width, other=0.0)
    b_sum = operand(silu(b_sum), p_out.dtype.element_ty)
    tl.store(p_out + pair.to(tl.int64) * width + o_width, b_sum, mask=m_width)


def takes_spec(a: Args) -> Verdict:
    """Whether the launches compute an op's head; if not, why."""
    spec = spec_of(a)
    if spec.norm != "layer":
        return False, f"the head's norm is {spec.norm}; the kernel takes layer"
    if spec.gated:
        return False, f"the head's activation is {spec.activation}; the kernel takes silu, gelu"
    return True, ""


class Launches:
    """Of any layers."""

    def linear(
        self,
        out: Tensor | None,
        x: Tensor,
        layer: Layer,
        *,
        norm: Norm | None = None,
        activation: str = "",
        gate: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        if out is None:
            out = x.new_empty((len(x), len(layer.weight)), dtype=layer.weight.dtype)
        return launch_linear(
            out,
            x,
            layer,
            norm=norm,
            activation=activation,
            gate=gate,
            residual=residual,
            factor=activation != "",
        )

    def silu_sum(self, out: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        pairs, width = out.shape
        if pairs:
            silu_sum_kernel[(pairs, tiles.tiles(width, tiles.ELEMENTS))](
                p_out=out,
                p_time=time,
                p_cond=condition,
                group=pairs // len(time),
                period=len(condition),
                width=width,
                BLOCK=tiles.ELEMENTS,
                num_warps=4,
            )
        return out

    step = staticmethod(launch_step)
