"""`denoise` by Triton, launch by launch (marfast/ops/head/gpu.py)."""

from torch import Tensor

from marfast.ops.head import gpu, options_of
from marfast.ops.head.triton import Launches
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime.triton import takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "weights": a.weights[0]}, width=len(a.weights[0]))


def run(a: Args) -> Tensor:
    rows, channels = a.x.shape
    out = a.x.new_empty((rows, 2 * channels))
    head = gpu.Head(a.weights, options_of(a), Launches())
    return gpu.denoise(head, out, a.x, a.t, a.cond)
