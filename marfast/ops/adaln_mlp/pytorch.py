"""`adaln_mlp` by PyTorch's own operators."""

from torch import Tensor

from marfast.ops.head import gpu
from marfast.ops.head.pytorch import Launches, wide
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.reference.head_weights import Layer


def can_run(a: Args) -> Verdict:
    return True, ""


def run(a: Args) -> Tensor:
    given = (a.x, a.shift, a.scale, a.gate, a.ln_weight, a.ln_bias)
    x, shift, scale, gate, weight, bias = (tensor.to(wide(a.x.dtype)) for tensor in given)
    norm, layers = Norm(shift, scale, weight, bias, a.eps), (Layer(a.w1, a.b1), Layer(a.w2, a.b2))
    out = gpu.adaln_mlp(Launches(), x.new_empty(x.shape), x, norm, layers, gate)
    return out.to(a.x.dtype)
