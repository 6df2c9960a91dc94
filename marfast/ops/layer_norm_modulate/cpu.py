"""`layer_norm_modulate` by csrc/cpu/layer_norm_modulate.h."""

from torch import Tensor

from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, cpu, takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x}, DTYPES)


def run(a: Args) -> Tensor:
    out: Tensor = a.x.new_empty(a.x.shape)
    cpu.extension().layer_norm_modulate(
        out=out,
        x=cpu.rows(a.x),
        shift=cpu.rows(a.shift),
        scale=cpu.rows(a.scale),
        weight=cpu.rows(a.weight),
        bias=cpu.rows(a.bias),
        eps=a.eps,
    )
    return out
