"""The way to the native extension `marfast._C`, loaded at its first use; it may be missing.

MARFAST_CPU_ISA, or `cpu_isa`, forces an instruction set below the best that this CPU has.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from marfast.errors import ArgumentError

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The values of `marfast::DType` (csrc/include/marfast/types.h)."""

WEIGHTS = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of weights that products take (`packed_code`)."""

_asked_for_an_isa = False
_forked = False


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
            _ask_for_isa(module, forced)
        except ValueError as error:
            raise ArgumentError("MARFAST_CPU_ISA", error) from None
    return module, ""


def _ask_for_isa(module: ModuleType, name: str) -> None:
    global _asked_for_an_isa
    module.set_isa(name)
    _asked_for_an_isa = True


def available() -> tuple[bool, str]:
    """Whether the kernels are to be used, and if not, why."""
    module, reason = _load()
    if module is not None and module.isa() == "portable" and not _asked_for_an_isa:
        reason = (
            "this CPU has no AVX2, and the portable kernels are slower than PyTorch "
            "(MARFAST_CPU_ISA=portable runs them)"
        )
    return reason == "", reason


def can_run(
    given: dict[str, Tensor], dtypes: Sequence[torch.dtype] = (torch.float32,)
) -> tuple[bool, str]:
    """Whether kernels take these tensors, by name, here and now; if not, why."""
    for name, tensor in given.items():
        if tensor.device.type != "cpu":
            return False, f"{name} is on {tensor.device}"
        if tensor.dtype not in dtypes:
            names = " or ".join(str(dtype)[6:] for dtype in dtypes)
            return False, f"{name} is {str(tensor.dtype)[6:]}; the kernel takes {names}"
    return available()


def packed_code(dtype: torch.dtype) -> int:
    """What weights of this dtype are packed as: bfloat16 as it is, float32 and float16 as float32,
    which loses nothing."""
    return DTYPE_CODES[dtype if dtype == torch.bfloat16 else torch.float32]


def threads() -> int:
    """How many threads a kernel may use: torch's count; 1 in a forked child, where the OpenMP
    runtime's threads are gone."""
    return 1 if _forked else torch.get_num_threads()


@contextlib.contextmanager
def torch_after_fork() -> Iterator[None]:
    """In a forked child, torch on one thread: its operators wait for threads that are gone."""
    before = torch.get_num_threads()
    if _forked:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if _forked:
            torch.set_num_threads(before)


def _note_fork() -> None:
    global _forked
    _forked = True


def empty(*sizes: int) -> Tensor:
    """Memory for a kernel: float32 on the CPU, whatever the caller's defaults are."""
    return torch.empty(sizes, dtype=torch.float32, device="cpu")


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
    global _asked_for_an_isa
    module = extension()
    before = module.isa(), _asked_for_an_isa
    _ask_for_isa(module, name)
    try:
        yield
    finally:
        module.set_isa(before[0])
        _asked_for_an_isa = before[1]


def rows(tensor: Tensor) -> Tensor:
    """`tensor` as kernels read it: elements of a row adjacent, rows at any stride."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
