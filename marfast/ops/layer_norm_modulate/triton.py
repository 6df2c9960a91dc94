"""`layer_norm_modulate`: LayerNorm(x) (1 + scale) + shift.

    m    = sum(x) / w
    mean = m + sum(x - m) / w
    rstd = 1 / sqrt(sum((x - mean)^2) / w + eps)
    out  = (((x - mean) rstd) weight + bias) (1 + scale) + shift

A program has one row and holds it in registers (BLOCK = w's next power of two), so x is read once;
the sums are trees over the row. Also a LayerNorm alone, where there is no shift and scale.
Bytes moved: 4 R w numbers; the floor is that over the memory's bandwidth.
"""

import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, rows_adjacent
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import row_stride, takes
from marfast.ops.runtime.triton_functions import operand


@triton.jit
def layer_norm_modulate_kernel(
    p_out,  # [R, w]
    p_x,  # [R, w]
    p_shift,  # [R, w], or None
    p_scale,  # [R, w], or None
    p_weight,  # [w], or None
    p_bias,  # [w], or None
    width,
    stride_out,
    stride_x,
    stride_shift,
    stride_scale,
    eps,
    OPERAND: tl.constexpr,  # whether the result is a factor of a product
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    o_width = tl.arange(0, BLOCK)
    m_width = o_width < width
    b_x = tl.load(p_x + row * stride_x + o_width, mask=m_width, other=0.0).to(tl.float32)  # [BLOCK]
    mean = tl.div_rn(tl.sum(b_x, 0), width * 1.0)
    mean += tl.div_rn(tl.sum(tl.where(m_width, b_x - mean, 0.0), 0), width * 1.0)
    b_x = tl.where(m_width, b_x - mean, 0.0)
    variance = tl.div_rn(tl.sum(b_x * b_x, 0), width * 1.0)
    b_x = b_x * tl.div_rn(1.0, tl.sqrt_rn(variance + eps))
    if p_weight is not None:
        b_x = b_x * tl.load(p_weight + o_width, mask=m_width, other=0.0).to(tl.float32)
    if p_bias is not None:
        b_x = b_x + tl.load(p_bias + o_width, mask=m_width, other=0.0).to(tl.float32)
    if p_shift is not None:
        b_scale = tl.load(p_scale + row * stride_scale + o_width, mask=m_width, other=0.0)
        b_shift = tl.load(p_shift + row * stride_shift + o_width, mask=m_width, other=0.0)
        b_x = b_x * (1.0 + b_scale.to(tl.float32)) + b_shift.to(tl.float32)
    if OPERAND:
        b_x = operand(b_x, p_out.dtype.element_ty)
    tl.store(p_out + row * stride_out + o_width, b_x.to(p_out.dtype.element_ty), mask=m_width)


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x}, width=a.x.shape[1])


def run(a: Args) -> Tensor:
    norm = Norm(a.shift, a.scale, a.weight, a.bias, a.eps)
    return launch(a.x.new_empty(a.x.shape), a.x, norm)


def launch(out: Tensor, x: Tensor, norm: Norm, *, factor: bool = False) -> Tensor:
    """Fills `out` [R, w]. `factor`: it enters a product."""
    rows, width = x.shape
    if rows == 0:
        return out
    x, shift, scale = rows_adjacent(x), rows_adjacent(norm.shift), rows_adjacent(norm.scale)
    block = tiles.power_of_two(width)
    layer_norm_modulate_kernel[(rows,)](
        p_out=out,
        p_x=x,
        p_shift=shift,
        p_scale=scale,
        p_weight=rows_adjacent(norm.weight),
        p_bias=rows_adjacent(norm.bias),
        width=width,
        stride_out=row_stride(out),
        stride_x=row_stride(x),
        stride_shift=row_stride(shift),
        stride_scale=row_stride(scale),
        eps=norm.eps,
        OPERAND=factor,
        BLOCK=block,
        num_warps=tiles.row_warps(block),
    )
    return out
