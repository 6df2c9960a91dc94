"""`fused_linear`: residual + gate act(LN(x) W^T + b), each part left out where it is not asked for.

    h   = ((x - mean) rstd) norm_weight + norm_bias, then h (1 + scale) + shift
    y   = h W^T + b, then GELU or SiLU, then times gate
    out = residual + y

A program has a tile [BR, BJ] of the result. It walks along the inputs, BK at a time: the tile of x
is normalised on its way, rounded to the weights' dtype, and multiplied; `tl.dot` adds in float32.
Under float32 (no TF32: "ieee") CHAIN inputs make one chain of FMAs, and the chains are added in
order. Mean and variance are taken in three walks over the rows before it, which then lie in cache;
the launcher normalises tall inputs once instead (triton_tiles.SHORT).

Rows share nothing, so a row's bits do not depend on how many there are, within one tile size.
Bytes moved: at least J K numbers of the weights, R (K + J) of the rows; the floor is the greater of
that over the memory's bandwidth and 2 R J K operations over the peak of the dtype's products.
"""

import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.layer_norm_modulate.triton import launch as launch_norm
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, rows_adjacent
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import row_stride, takes
from marfast.ops.runtime.triton_functions import gelu, operand, row_moments, silu
from marfast.reference.head_weights import Layer


@triton.jit(do_not_specialize=["rows"])
def fused_linear_kernel(
    p_out,  # [R, J]
    p_x,  # [R, K]
    p_weight,  # [J, K]
    p_bias,  # [J], or None
    p_norm_weight,  # [K], or None
    p_norm_bias,  # [K], or None
    p_shift,  # [R, K], or None
    p_scale,  # [R, K], or None
    p_gate,  # [R, J], or None
    p_residual,  # [R, J], or None
    rows,
    outputs,
    stride_out,
    stride_x,
    stride_weight,
    stride_shift,
    stride_scale,
    stride_gate,
    stride_residual,
    eps,
    INPUTS: tl.constexpr,
    NORM: tl.constexpr,
    ACTIVATION: tl.constexpr,  # "", "silu" or "gelu"
    OPERAND: tl.constexpr,  # whether the result is a factor of the next product
    CHAIN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    o_rows = (tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]  # [BR, 1]
    o_outputs = (tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J))[None, :]  # [1, BJ]
    m_rows = o_rows < rows
    m_outputs = o_outputs < outputs
    o_rows = o_rows.to(tl.int64)
    p_rows = p_x + o_rows * stride_x  # [BR, 1]
    p_columns = p_weight + o_outputs.to(tl.int64) * stride_weight  # [1, BJ]
    if NORM:
        mean, rstd = row_moments(p_rows, m_rows, eps, INPUTS, BLOCK_R, BLOCK_K)

    b_out = tl.full((BLOCK_R, BLOCK_J), 0.0, tl.float32)
    for first in range(0, INPUTS, CHAIN):
        b_chain = tl.full((BLOCK_R, BLOCK_J), 0.0, tl.float32)
        for k in range(first, first + CHAIN, BLOCK_K):
            o_inputs = k + tl.arange(0, BLOCK_K)
            m_inputs = o_inputs < INPUTS
            m_x = m_rows & m_inputs[None, :]
            b_x = tl.load(p_rows + o_inputs[None, :], mask=m_x, other=0.0)  # [BR, BK]
            if NORM:
                b_x = (b_x.to(tl.float32) - mean) * rstd
            if p_norm_weight is not None:
                b_weight = tl.load(p_norm_weight + o_inputs, mask=m_inputs, other=0.0)
                b_x = b_x * b_weight[None, :].to(tl.float32)
            if p_norm_bias is not None:
                b_bias = tl.load(p_norm_bias + o_inputs, mask=m_inputs, other=0.0)
                b_x = b_x + b_bias[None, :].to(tl.float32)
            if p_shift is not None:
                o_modulation = o_rows * stride_scale + o_inputs[None, :]
                b_scale = tl.load(p_scale + o_modulation, mask=m_x, other=0.0)
                o_modulation = o_rows * stride_shift + o_inputs[None, :]
                b_shift = tl.load(p_shift + o_modulation, mask=m_x, other=0.0)
                b_x = b_x * (1.0 + b_scale.to(tl.float32)) + b_shift.to(tl.float32)
            m_w = m_inputs[:, None] & m_outputs
            b_w = tl.load(p_columns + o_inputs[:, None], mask=m_w, other=0.0)  # [BK, BJ]
            b_x = operand(b_x, p_weight.dtype.element_ty)
            b_chain = tl.dot(b_x, b_w, b_chain, input_precision="ieee")
        b_out += b_chain

    if p_bias is not None:
        b_out += tl.load(p_bias + o_outputs, mask=m_outputs, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        b_out = silu(b_out)
    if ACTIVATION == "gelu":
        b_out = gelu(b_out)
    m_out = m_rows & m_outputs
    if p_gate is not None:
        b_gate = tl.load(p_gate + o_rows * stride_gate + o_outputs, mask=m_out, other=0.0)
        b_out = b_gate.to(tl.float32) * b_out
    if p_residual is not None:
        o_residual = o_rows * stride_residual + o_outputs
        b_residual = tl.load(p_residual + o_residual, mask=m_out, other=0.0)
        b_out = b_residual.to(tl.float32) + b_out
    if OPERAND:
        b_out = operand(b_out, p_out.dtype.element_ty)
    b_out = b_out.to(p_out.dtype.element_ty)
    tl.store(p_out + o_rows * stride_out + o_outputs, b_out, mask=m_out)


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "weight": a.weight}, width=a.x.shape[1])


def run(a: Args) -> Tensor:
    return launch(
        a.x.new_empty((len(a.x), len(a.weight))),
        a.x,
        Layer(a.weight, a.bias),
        norm=None if a.norm_weight is None else Norm(None, None, a.norm_weight, a.norm_bias, a.eps),
        activation="gelu" if a.gelu else "",
        residual=a.residual,
    )


def launch(
    out: Tensor,
    x: Tensor,
    layer: Layer,
    *,
    norm: Norm | None = None,
    activation: str = "",
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    factor: bool = False,
) -> Tensor:
    """Fills `out` [R, J]. `factor`: it enters the next product."""
    rows, inputs = x.shape
    outputs = len(layer.weight)
    if rows == 0:
        return out
    if norm is not None and rows > tiles.SHORT:
        h = x.new_empty((rows, inputs), dtype=layer.weight.dtype)
        x, norm = launch_norm(h, x, norm, factor=True), None
    tile = tiles.linear(rows, layer.weight.dtype, x.dtype)
    own = Norm() if norm is None else norm
    x, weight = rows_adjacent(x), rows_adjacent(layer.weight)
    shift, scale = rows_adjacent(own.shift), rows_adjacent(own.scale)
    gate, residual = rows_adjacent(gate), rows_adjacent(residual)
    fused_linear_kernel[(tiles.tiles(rows, tile.rows), tiles.tiles(outputs, tile.outputs))](
        p_out=out,
        p_x=x,
        p_weight=weight,
        p_bias=rows_adjacent(layer.bias),
        p_norm_weight=rows_adjacent(own.weight),
        p_norm_bias=rows_adjacent(own.bias),
        p_shift=shift,
        p_scale=scale,
        p_gate=gate,
        p_residual=residual,
        rows=rows,
        outputs=outputs,
        stride_out=row_stride(out),
        stride_x=row_stride(x),
        stride_weight=row_stride(weight),
        stride_shift=row_stride(shift),
        stride_scale=row_stride(scale),
        stride_gate=row_stride(gate),
        stride_residual=row_stride(residual),
        eps=own.eps,
        INPUTS=inputs,
        NORM=norm is not None,
        ACTIVATION=activation,
        OPERAND=factor,
        CHAIN=tiles.chain(inputs, tile.inputs, weight.dtype),
        BLOCK_R=tile.rows,
        BLOCK_J=tile.outputs,
        BLOCK_K=tile.inputs,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out
