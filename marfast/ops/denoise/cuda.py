"""`denoise` by csrc/cuda, launch by launch (marfast/ops/head/gpu.py)."""

import torch
from torch import Tensor

from marfast.ops.head import gpu, options_of
from marfast.ops.head.cuda import Launches, dense
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x, "weights": a.weights[0]}, DTYPES)


def run(a: Args) -> Tensor:
    rows, channels = a.x.shape
    out = a.x.new_empty((rows, 2 * channels), dtype=torch.float32)
    head = gpu.Head([dense(weight) for weight in a.weights], options_of(a), Launches())
    return gpu.denoise(head, out, a.x, a.t, a.cond).to(a.x.dtype)
