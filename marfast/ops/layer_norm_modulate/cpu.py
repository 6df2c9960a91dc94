"""`layer_norm_modulate` by csrc/cpu/layer_norm_modulate.h."""

from torch import Tensor

from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, cpu, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x}, DTYPES)


def run(a: Args) -> Tensor:
    out: Tensor = a.x.new_empty(a.x.shape)
    cpu.extension().layer_norm_modulate(
        out=out,
        x=rows_adjacent(a.x),
        shift=rows_adjacent(a.shift),
        scale=rows_adjacent(a.scale),
        weight=rows_adjacent(a.weight),
        bias=rows_adjacent(a.bias),
        eps=a.eps,
    )
    return out
