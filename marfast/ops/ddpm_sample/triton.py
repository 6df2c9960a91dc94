"""`ddpm_sample` by Triton, launch by launch (marfast/ops/head/gpu.py).

Every launch has its arguments from the shapes alone.
"""

import torch
from torch import Tensor

from marfast.ops.ddpm_sample import options, scales_of
from marfast.ops.head import gpu, spec_of, takes_threshold
from marfast.ops.head.triton import Launches, takes_spec
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime.triton import takes


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"noise": a.noise}, (torch.float32,))
    if not ok:
        return ok, reason
    ok, reason = takes({"weights": a.weights[0]}, width=len(a.weights[0]))
    if ok:
        ok, reason = takes_threshold(a)
    return takes_spec(a) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    head = gpu.Head(a.weights, Launches(), spec=spec_of(a))
    return gpu.sample(a, options(a), scales_of(a), lambda rows: head)
