"""`ddpm_sample` by Triton, launch by launch (marfast/ops/head/gpu.py).

Every launch has its arguments from the shapes alone.
"""

import torch
from torch import Tensor

from marfast.ops.ddpm_sample import options
from marfast.ops.head import gpu
from marfast.ops.head.triton import Launches
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime.triton import takes


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"noise": a.noise}, (torch.float32,))
    if not ok:
        return ok, reason
    return takes({"weights": a.weights[0]}, width=len(a.weights[0]))


def run(a: Args) -> Tensor:
    head = gpu.Head(a.weights, options(a), Launches())
    return gpu.sample(a, lambda rows: head)
