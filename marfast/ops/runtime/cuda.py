"""The CUDA kernels, `marfast._cuda`, loaded at their first use; they may be missing.

Importing this touches no device. Kernels run on the current stream of their tensors' device.
"""

import contextlib
import functools
import importlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from marfast.ops.runtime import Verdict

ON_REQUEST = True  # or where it was measured to be the fastest

CAPABILITY = (8, 0)
"""The least compute capability: mma.sync on bfloat16 and cp.async."""


@functools.cache
def _load() -> tuple[Any, str]:
    try:
        return importlib.import_module("..._cuda", __package__), ""
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


def is_built() -> Verdict:
    """Whether the kernels are here, and if not, why."""
    loaded, reason = _load()
    return loaded is not None, reason


def reaches(name: str, device: torch.device) -> Verdict:
    """Whether the backend runs on the device that the tensor of this name is on; if not, why."""
    if device.type != "cuda":
        return False, f"{name} is on {device}"
    if torch.version.hip:
        return False, "this torch is built for ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return False, f"compute capability {capability[0]}.{capability[1]}; the kernels need 8.0"
    return True, ""


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes it the current one; the emulator's, of the tests, is the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def call(name: str, device: torch.device, **arguments: Any) -> None:
    """Enqueues a launch of the module on the current stream of the device, the current one."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    getattr(module(), name)(stream=stream, **arguments)
