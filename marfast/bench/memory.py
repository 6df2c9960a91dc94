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
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that taking it again shows
        _CLEAR.write_text("5")  # the peak begins anew
        before = _kib("VmRSS")
        run()
        return round((_kib("VmHWM") - before) * 1024 / 1e6, 1)
    except (OSError, AttributeError):
        run()
        return None


def _kib(name: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
