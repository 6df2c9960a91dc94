"""`denoise` by csrc/cpu/denoise.h."""

from torch import Tensor

from marfast.ops.denoise import out_shape
from marfast.ops.head import HeadShape, spec_of
from marfast.ops.head.cpu import packed_head, time_embedding
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, check_memory, cpu, takes

GROUP = 128  # rows whose modulation is kept at a time


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "weights": a.weights[0]}, DTYPES)


def run(a: Args) -> Tensor:
    spec, rows = spec_of(a), len(a.x)
    shape = HeadShape.of(a.weights, spec)
    check_memory(x=a.x, t=a.t, cond=a.cond)
    packed = packed_head(a, shape, spec)
    x, cond = a.x.float().contiguous(), a.cond.float().contiguous()
    group = min(rows, GROUP)
    workspace = cpu.empty(cpu.extension().denoise_workspace(shape=shape, spec=spec, rows=group))
    out = x.new_empty(out_shape(a))
    for first in range(0, rows, GROUP):
        members = slice(first, min(rows, first + GROUP))
        cpu.extension().denoise(
            out=out[members],
            x=x[members],
            condition=cond[members],
            time_embedding=time_embedding(a.t[members], shape.frequencies, spec),
            packed=packed,
            workspace=workspace,
            shape=shape,
            spec=spec,
            weight_dtype=cpu.packed_dtype(a.weights[0].dtype),
            threads=cpu.threads(),
        )
    result: Tensor = out.to(a.x.dtype)
    return result
