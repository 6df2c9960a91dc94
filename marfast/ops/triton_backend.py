"""The way to the Triton kernels (`marfast.triton`), loaded at their first use; triton may be
missing.

TRITON_INTERPRET=1, set before the process starts, runs them on the CPU through Triton's
interpreter: slow, for tests.
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from marfast.ops.registry import Backend, Verdict

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED: tuple[torch.dtype, ...] = (torch.float32, torch.float16)
"""What the interpreter computes rightly: it cuts bfloat16 off where it should round."""

INDICES = 2**31
"""Sizes and strides are 32-bit numbers in the kernels."""

WIDEST = 16384
"""Numbers of a row that a program holds in registers to normalise it."""


def interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def can_run(
    given: dict[str, Tensor], dtypes: Sequence[torch.dtype] = DTYPES, width: int = 1
) -> Verdict:
    """Whether kernels take these tensors, by name, here and now, and normalise rows of `width`; if
    not, why."""
    for name, tensor in given.items():
        if tensor.device.type not in (("cpu", "cuda") if interpreting() else ("cuda",)):
            return False, f"{name} is on {tensor.device}"
        if tensor.dtype not in dtypes:
            names = " or ".join(str(dtype)[6:] for dtype in dtypes)
            return False, f"{name} is {str(tensor.dtype)[6:]}; the kernel takes {names}"
        if interpreting() and tensor.dtype not in INTERPRETED:
            return False, f"{name} is {str(tensor.dtype)[6:]}, which the interpreter cuts off"
        if any(size >= INDICES for size in (*tensor.shape, *map(abs, tensor.stride()))):
            return False, f"{name} has a size or stride past 2^31"
    if width > WIDEST:
        return False, f"rows are {width} wide; the kernel holds {WIDEST} at most"
    return _installed()


@functools.cache
def _installed() -> Verdict:
    if importlib.util.find_spec("triton") is None:
        return False, "triton isn't installed"
    return True, ""


def backend(name: str, can_run: Callable[..., Verdict]) -> Backend:
    """The op's Triton backend: `marfast.triton.<name>.<name>`."""

    def run(*args: object) -> Tensor:
        launcher = getattr(importlib.import_module(f"marfast.triton.{name}"), name)
        result: Tensor = launcher(*args)
        return result

    return Backend("triton", can_run, run, on_request=True)
