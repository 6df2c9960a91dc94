"""`denoise` by csrc/cuda, launch by launch (marfast/ops/head/gpu.py)."""

import torch
from torch import Tensor

from marfast.ops.denoise import out_shape
from marfast.ops.head import gpu, takes_mars
from marfast.ops.head.cuda import Launches, dense
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, takes


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x, "weights": a.weights[0]}, DTYPES)
    return takes_mars(a) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    out = a.x.new_empty(out_shape(a), dtype=torch.float32)
    head = gpu.Head([dense(weight) for weight in a.weights], Launches())
    return gpu.denoise(head, out, a.x, a.t, a.cond).to(a.x.dtype)
