"""`layer_norm_modulate` by csrc/cuda/layer_norm_modulate.cuh."""

from torch import Tensor

from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, cuda, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x}, DTYPES)


def run(a: Args) -> Tensor:
    norm = Norm(a.shift, a.scale, a.weight, a.bias, a.eps)
    return launch(a.x.new_empty(a.x.shape), a.x, norm)


def launch(out: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Fills `out`, of x's dtype, or of half precision where x is float32."""
    cuda.call(
        "layer_norm_modulate",
        x.device,
        out=out,
        x=rows_adjacent(x),
        shift=rows_adjacent(norm.shift),
        scale=rows_adjacent(norm.scale),
        weight=rows_adjacent(norm.weight),
        bias=rows_adjacent(norm.bias),
        eps=norm.eps,
    )
    return out
