"""The way to the GPU's kernels, `marfast._cuda`, loaded at its first use; it may be missing.

Importing this touches no device. Kernels run on the current stream of their tensors' device.
"""

import contextlib
import functools
import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from marfast.ops import native

CAPABILITY = (8, 0)
"""The least compute capability: mma.sync on bfloat16 and cp.async."""


@functools.cache
def _load() -> tuple[Any, str]:
    try:
        return importlib.import_module("marfast._cuda"), ""
    except ModuleNotFoundError:
        return None, "the CUDA kernels (marfast._cuda) aren't built (MARFAST_BUILD_CUDA=1)"
    except ImportError as error:
        return None, f"the CUDA kernels can't be loaded: {error}"


def module() -> Any:
    """`marfast._cuda`; ImportError with the reason if it is missing."""
    loaded, reason = _load()
    if loaded is None:
        raise ImportError(reason)
    return loaded


def device_verdict(name: str, tensor: Tensor) -> tuple[bool, str]:
    """Whether kernels run on this tensor's device; if not, why."""
    if tensor.device.type != "cuda":
        return False, f"{name} is on {tensor.device}"
    if torch.version.hip:
        return False, "this torch is built for ROCm"
    capability = torch.cuda.get_device_capability(tensor.device)
    if capability < CAPABILITY:
        return False, f"compute capability {capability[0]}.{capability[1]}; the kernels need 8.0"
    return True, ""


def can_run(
    given: dict[str, Tensor], dtypes: Sequence[torch.dtype] = (torch.float32,)
) -> tuple[bool, str]:
    """Whether kernels take these tensors, by name, here and now; if not, why."""
    for name, tensor in given.items():
        ok, reason = device_verdict(name, tensor)
        if not ok:
            return False, reason
        if tensor.dtype not in dtypes:
            names = " or ".join(str(dtype)[6:] for dtype in dtypes)
            return False, f"{name} is {str(tensor.dtype)[6:]}; the kernel takes {names}"
    loaded, reason = _load()
    return loaded is not None, reason


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes it the current one; the emulator's, of the tests, is the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def call(op: str, device: torch.device, *args: Any) -> None:
    """Runs `op` of the module on the device's current stream."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    with on(device):
        getattr(module(), op)(*args, stream)


def device_sizes(device: torch.device) -> tuple[int, int, int]:
    """Streaming multiprocessors, bytes of shared memory that a block may have, bytes of L2."""
    with on(device):
        sms, shared_bytes, l2_bytes = module().device_sizes()
    return sms, shared_bytes, l2_bytes


def code(dtype: torch.dtype) -> int:
    """The value of `marfast::DType`."""
    return native.DTYPE_CODES[dtype]
