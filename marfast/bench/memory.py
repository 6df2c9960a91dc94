"""The memory that a run works in."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def working_mb(run: Callable[[], object], device: torch.device) -> float | None:
    """MB that one call takes beyond what the process held before it; None where the operating
    system doesn't tell (it is Linux that does)."""
    if device.type == "cuda":
        allocated = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return round((torch.cuda.max_memory_allocated(device) - allocated) / 1e6, 1)
    try:
        restart_peak()
        before = resident_mb()
        run()
        return round(peak_mb() - before, 1)
    except (OSError, AttributeError):
        run()
        return None


def restart_peak() -> None:
    """The peak of this process's resident set begins anew, from what it holds. Linux alone."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that taking it again shows
    _CLEAR.write_text("5")


def resident_mb() -> float:
    """MB that this process holds now."""
    return _megabytes("VmRSS")


def peak_mb() -> float:
    """MB at the peak."""
    return _megabytes("VmHWM")


def _megabytes(name: str) -> float:
    lines = _STATUS.read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return kib * 1024 / 1e6
