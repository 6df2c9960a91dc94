"""What measures calls on a device."""

import functools
import importlib.metadata
import importlib.util
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from marfast._version import __version__
from marfast.ops.runtime.capture import beside, capture

LEAST, MOST = 3, 20
"""Runs whose median is taken."""


class Stopwatch(Protocol):
    """Of one device."""

    def machine(self) -> dict[str, str]:
        """What times hold for: they are others on another."""

    def now(self) -> float:
        """Seconds, when all that was launched so far has ended."""

    def seconds(self, run: Callable[[], object], limit: float) -> float:
        """How long one run takes, as a graph: the median of some, in about `limit` seconds."""


class CudaStopwatch:
    """Events round replays of a captured graph."""

    def __init__(self, device: torch.device):
        self.device = device

    def machine(self) -> dict[str, str]:
        found = torch.cuda.get_device_properties(self.device)
        return {
            "gpu": f"{found.name}, {found.multi_processor_count} SMs",
            "driver": _driver(),
            "torch": torch.__version__,
            "triton": _version_of("triton"),
            "marfast": __version__,
            "kernels": _kernels(),
        }

    def now(self) -> float:
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, run: Callable[[], object], limit: float) -> float:
        with beside(self.device):
            run()  # what a first run sets up can't be captured
        graph = torch.cuda.CUDAGraph()
        capture(graph, self.device, run, torch.cuda.graph_pool_handle())
        with torch.cuda.device(self.device):
            graph.replay()
            return _median(graph.replay, self.now() + limit)


def _median(run: Callable[[], object], until: float) -> float:
    times: list[float] = []
    while len(times) < LEAST or (len(times) < MOST and time.perf_counter() < until):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


@functools.cache
def _driver() -> str:
    """NVIDIA's own version where the system tells it, else the CUDA version that it has."""
    try:
        told = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = ""
    found = re.search(r"\d+\.\d+(\.\d+)?", told)
    return found[0] if found else f"CUDA {torch.version.cuda or torch.version.hip}"


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _kernels() -> str:
    """Which build of the CUDA kernels is here."""
    spec = importlib.util.find_spec(".._cuda", __package__)
    if spec is None or spec.origin is None:
        return "none"
    file = Path(spec.origin).stat()
    return f"{platform.machine()}, {file.st_size} bytes, {file.st_mtime_ns}"
