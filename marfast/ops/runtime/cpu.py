"""The CPU's kernels, `marfast._cpu`, loaded at their first use; they may be missing.

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

from marfast.errors import ArgumentError
from marfast.ops.runtime import DTYPES, Verdict, takes

ON_REQUEST = False

PANEL = 32
"""Outputs of a panel of packed weights (csrc/cpu/packed_linear.h)."""

_asked_for_an_isa = False
_forked = False


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("..._cpu", __package__)
    except ModuleNotFoundError:
        return None, "the native extension (marfast._cpu) isn't built"
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


def is_built() -> Verdict:
    """Whether the kernels are to be used, and if not, why."""
    module, reason = _load()
    if module is not None and module.isa() == "portable" and not _asked_for_an_isa:
        reason = (
            "this CPU has no AVX2, and the portable kernels are slower than PyTorch "
            "(MARFAST_CPU_ISA=portable runs them)"
        )
    return reason == "", reason


def reaches(name: str, device: torch.device) -> Verdict:
    """Whether the backend runs on the device that the tensor of this name is on; if not, why."""
    return device.type == "cpu", f"{name} is on {device}"


def why_not(weight: Tensor) -> str:
    """Why kernels would not run on weights such as this one, here and now; empty if they would."""
    for ok, reason in (reaches("weight", weight.device), takes({"weight": weight}, DTYPES)):
        if not ok:
            return reason
    return is_built()[1]


def extension() -> Any:
    """`marfast._cpu`; ImportError with the reason if it is missing."""
    module, reason = _load()
    if module is None:
        raise ImportError(reason)
    return module


def packed_dtype(dtype: torch.dtype) -> torch.dtype:
    """What weights of this dtype are packed as: bfloat16 as it is, float32 and float16 as float32,
    which loses nothing."""
    return dtype if dtype == torch.bfloat16 else torch.float32


def packable(weight: Tensor) -> Tensor:
    """A weight's values as they lie in memory: nothing that torch has only noted on the tensor (a
    view of negated numbers), as its dispatcher takes care of in an op's arguments."""
    return weight.detach().resolve_neg().contiguous()


def empty(*sizes: int) -> Tensor:
    """Memory for a kernel: float32 on the CPU, whatever the caller's defaults are."""
    return torch.empty(sizes, dtype=torch.float32, device="cpu")


def row_stride(size: int) -> int:
    """Floats from a row of scratch to the next: whole panels, and one more, so that rows don't fall
    into the same cache sets."""
    return -(-size // PANEL) * PANEL + PANEL


def threads() -> int:
    """How many threads a kernel may use: torch's count; 1 in a forked child, where the OpenMP
    runtime's threads are gone."""
    return 1 if _forked else torch.get_num_threads()


def _note_fork() -> None:
    """One thread for torch's own operators, too: they would wait for those that are gone."""
    global _forked
    _forked = True
    torch.set_num_threads(1)


def describe() -> str:
    """One line: the instruction set in use and those usable, or why there is no extension."""
    module, reason = _load()
    if module is None:
        return f"no native kernels, everything runs in plain PyTorch: {reason}"
    return f"native kernels: {module.isa()} (usable: {', '.join(module.isas())})"


@functools.cache
def warn_if_missing() -> None:
    """Says, once, that marfast runs in plain PyTorch if the extension is missing."""
    ok, reason = is_built()
    if not ok:
        warnings.warn(f"marfast runs in plain PyTorch: {reason}", RuntimeWarning, stacklevel=2)


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
