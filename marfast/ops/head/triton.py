"""What conditions the head: SiLU(T + c), and every block's shift, scale and gate from it.

    y[p] = SiLU(T[p / group] + c[p % period])           p: pairs of a step and a row
    M[i] = y W_ada[i]^T + b_ada[i]                      for each block i, and the final layer

`silu_sum_kernel` is elementwise: ELEMENTS numbers a program, all pairs in a row. Bytes moved: w
numbers of y a pair, for T and c stay in cache; the products that follow move 3 d + 2 times as many.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .device import operand, silu
from .fused_linear import launch


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


def modulation(
    time: Tensor, cond: Tensor, group: int, projections: Sequence[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """M[i] for each projection (W, b): time [P / group, w], cond [period, w], float32 and dense,
    -> [P, outputs] float32. It stays float32: half of it would cost accuracy and save nothing."""
    pairs, width = len(time) * group, time.shape[1]
    y = time.new_empty((pairs, width), dtype=projections[0][0].dtype)
    if pairs:
        silu_sum_kernel[(pairs, tiles.tiles(width, tiles.ELEMENTS))](
            *(y, time, cond, group, len(cond), width), BLOCK=tiles.ELEMENTS, num_warps=4
        )
    return [
        launch(time.new_empty((pairs, len(weight))), y, weight, bias)
        for weight, bias in projections
    ]
