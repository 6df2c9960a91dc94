"""Triton, imported at the kernels' first use; it may be missing.

TRITON_INTERPRET=1, set before the process starts, runs kernels on the CPU through Triton's
interpreter: slow, for tests.
"""

import functools
import importlib.util
import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from marfast.ops import runtime
from marfast.ops.runtime import DTYPES, Verdict, short_dtype

ON_REQUEST = True  # or where it was measured to be the fastest

INTERPRETED = (torch.float32, torch.float16)
"""What the interpreter computes rightly: it cuts bfloat16 off where it should round."""

INDICES = 2**31
"""Sizes and strides are 32-bit numbers in the kernels."""

WIDEST = 16384
"""Numbers of a row that a program holds in registers to normalise it."""


def interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def reaches(name: str, device: torch.device) -> Verdict:
    """Whether the backend runs on the device that the tensor of this name is on; if not, why."""
    allowed = ("cpu", "cuda") if interpreting() else ("cuda",)
    return device.type in allowed, f"{name} is on {device}"


@functools.cache
def is_built() -> Verdict:
    """Whether Triton is here, and if not, why."""
    return importlib.util.find_spec("triton") is not None, "triton isn't installed"


def takes(
    given: Mapping[str, Tensor], dtypes: Sequence[torch.dtype] = DTYPES, width: int = 1
) -> Verdict:
    """Whether kernels take these tensors, by name, and normalise rows of `width`; if not, why."""
    ok, reason = runtime.takes(given, dtypes)
    if not ok:
        return ok, reason
    for name, tensor in given.items():
        if interpreting() and tensor.dtype not in INTERPRETED:
            return False, f"{name} is {short_dtype(tensor.dtype)}, which the interpreter cuts off"
        if any(size >= INDICES for size in (*tensor.shape, *map(abs, tensor.stride()))):
            return False, f"{name} has a size or stride past 2^31"
    if width > WIDEST:
        return False, f"rows are {width} wide; the kernel holds {WIDEST} at most"
    return True, ""


def row_stride(tensor: Tensor | None) -> int:
    """Elements from a row to the next. A single row's stride is arbitrary, so its width stands for
    it: what is compiled must not depend on it."""
    if tensor is None:
        return 0
    return tensor.stride(0) if tensor.shape[0] > 1 else tensor.shape[-1]
