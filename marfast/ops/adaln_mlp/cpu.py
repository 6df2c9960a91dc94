"""`adaln_mlp` by csrc/cpu/adaln_mlp.h."""

import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops.fused_linear.cpu import pack_linear, packed_size
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, check_memory, cpu, rows_adjacent, takes

GROUP = 128  # rows whose hidden values stay in cache


def pack_adaln_mlp(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """A block's MLP weights as the CPU's `adaln_mlp` reads them: opaque, tied to these values.

    Takes what `pack_linear` takes, and raises what it raises -> [size] float32.
    """
    check_memory(w1=w1, b1=b1, w2=w2, b2=b2)
    return torch.cat([pack_linear(w1, b1), pack_linear(w2, b2)])


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "w1": a.w1}, DTYPES)


def run(a: Args) -> Tensor:
    rows, width = a.x.shape
    packed = pack_adaln_mlp(a.w1, a.b1, a.w2, a.b2) if a.packed is None else a.packed
    if packed.shape != (2 * packed_size(a.w1),):
        raise ArgumentError("packed", "it is not what ops.pack_adaln_mlp returns for this block")
    check_memory(x=a.x, shift=a.shift, scale=a.scale, gate=a.gate)
    check_memory(ln_weight=a.ln_weight, ln_bias=a.ln_bias)
    x, group = rows_adjacent(a.x.float()), min(GROUP, rows)
    out = x.new_empty((rows, width))
    cpu.extension().adaln_mlp(
        out=out,
        x=x,
        shift=rows_adjacent(a.shift.float()),
        scale=rows_adjacent(a.scale.float()),
        gate=rows_adjacent(a.gate.float()),
        norm_weight=rows_adjacent(a.ln_weight.float()),
        norm_bias=rows_adjacent(a.ln_bias.float()),
        packed=packed,
        workspace=cpu.empty(2, group, cpu.row_stride(width)),
        group=group,
        weight_dtype=cpu.packed_dtype(a.w1.dtype),
        threads=cpu.threads(),
        eps=a.eps,
    )
    result: Tensor = out.to(a.x.dtype)
    return result
