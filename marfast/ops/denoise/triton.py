"""`denoise` by Triton, launch by launch (marfast/ops/head/gpu.py)."""

from torch import Tensor

from marfast.ops.denoise import out_shape
from marfast.ops.head import gpu, spec_of
from marfast.ops.head.triton import Launches, takes_spec
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime.triton import takes


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x, "weights": a.weights[0]}, width=len(a.weights[0]))
    return takes_spec(a) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    out = a.x.new_empty(out_shape(a))
    head = gpu.Head(a.weights, Launches(), spec=spec_of(a))
    return gpu.denoise(head, out, a.x, a.t, a.cond)
