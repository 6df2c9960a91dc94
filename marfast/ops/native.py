"""The way to the native extension `marfast._C`, loaded at its first use; it may be missing.

MARFAST_CPU_ISA, or `cpu_isa`, forces an instruction set below the best that this CPU has.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The values of `marfast::DType` (csrc/include/marfast/types.h)."""


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("marfast._C")
    except ModuleNotFoundError:
        return None, "the native extension (marfast._C) isn't built"
    except ImportError as error:
        return None, f"the native extension can't be loaded: {error}"
    if forced := os.environ.get("MARFAST_CPU_ISA"):
        try:
            module.set_isa(forced)
        except ValueError as error:
            raise ValueError(f"MARFAST_CPU_ISA: {error}") from None
    return module, ""


def available() -> tuple[bool, str]:
    """Whether the extension can be used, and if not, why."""
    module, reason = _load()
    return module is not None, reason


def describe() -> str:
    """One line: the instruction set in use and those usable, or why there is no extension."""
    module, reason = _load()
    if module is None:
        return f"no native kernels, everything runs in plain PyTorch: {reason}"
    return f"native kernels: {module.isa()} (usable: {', '.join(module.isas())})"


@functools.cache
def warn_if_missing() -> None:
    """Says, once, that marfast runs in plain PyTorch if the extension is missing."""
    ok, reason = available()
    if not ok:
        warnings.warn(f"marfast runs in plain PyTorch: {reason}", RuntimeWarning, stacklevel=2)


def extension() -> Any:
    """`marfast._C`; ImportError with the reason if it is missing."""
    module, reason = _load()
    if module is None:
        raise ImportError(reason)
    return module


@contextlib.contextmanager
def cpu_isa(name: str) -> Iterator[None]:
    """Runs the CPU kernels of one instruction set, for the whole process, inside the block.

    ValueError for a name that is unknown or that this CPU lacks (`extension().isas()` lists the
    usable ones).
    """
    module = extension()
    before = module.isa()
    module.set_isa(name)
    try:
        yield
    finally:
        module.set_isa(before)


def rows(tensor: Tensor) -> Tensor:
    """`tensor` as kernels read it: elements of a row adjacent, rows at any stride."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
