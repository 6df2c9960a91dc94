"""`adaln_mlp` by csrc/cuda: LN + modulate, and two products."""

from torch import Tensor

from marfast.ops.head import gpu
from marfast.ops.head.cuda import Launches, dense
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, rows_adjacent, takes
from marfast.reference.head_weights import Layer


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "w1": a.w1}, DTYPES)


def run(a: Args) -> Tensor:
    x = rows_adjacent(a.x.float())
    norm = Norm(a.shift.float(), a.scale.float(), a.ln_weight.float(), a.ln_bias.float(), a.eps)
    layers = Layer(dense(a.w1), dense(a.b1)), Layer(dense(a.w2), dense(a.b2))
    gate: Tensor = rows_adjacent(a.gate.float())
    out = gpu.adaln_mlp(Launches(), x.new_empty(x.shape), x, norm, layers, gate)
    return out.to(a.x.dtype)
