"""`ddpm_sample` by PyTorch's own operators, launch by launch (marfast/ops/head/gpu.py)."""

from torch import Tensor

from marfast.ops.ddpm_sample import options, scales_of
from marfast.ops.head import gpu
from marfast.ops.head.pytorch import head_of
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict


def can_run(a: Args) -> Verdict:
    return True, ""


def run(a: Args) -> Tensor:
    head = head_of(a)
    return gpu.sample(a, options(a), scales_of(a), lambda rows: head)
