"""`adaln_mlp` by Triton: two launches of `fused_linear`, the LayerNorm on the way into the first.

Every output of the second product needs every output of the first, and nothing in Triton waits for
a whole grid. What lies between them is kept in the weights' dtype, to which it would be rounded
anyway.
"""

from torch import Tensor

from marfast.ops.head import gpu
from marfast.ops.head.triton import Launches
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime.triton import takes
from marfast.reference.head_weights import Layer


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "w1": a.w1}, width=a.x.shape[1])


def run(a: Args) -> Tensor:
    out = a.x.new_empty(a.x.shape)
    norm = Norm(a.shift, a.scale, a.ln_weight, a.ln_bias, a.eps)
    layers = Layer(a.w1, a.b1), Layer(a.w2, a.b2)
    return gpu.adaln_mlp(Launches(), out, a.x, norm, layers, a.gate)
