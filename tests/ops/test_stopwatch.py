"""What times hold for, with a made-up device in a GPU's place."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marfast._version import __version__
from marfast.ops import stopwatch
from marfast.ops.stopwatch import LEAST, MOST, CudaStopwatch

GPU = torch.device("cuda", 1)
DRIVER = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024
GCC version:  gcc version 12.2.0
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="H200", multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    stopwatch._driver.cache_clear()


@pytest.mark.usefixtures("gpu")
def test_a_machine_is_its_gpu_driver_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: DRIVER)
    machine = CudaStopwatch(GPU).machine()
    assert machine.items() >= {
        ("gpu", "H200, 132 SMs"),
        ("driver", "550.54.15"),
        ("torch", torch.__version__),
        ("marfast", __version__),
    }
    assert machine.keys() - {"gpu", "driver", "torch", "marfast"} == {"triton", "kernels"}


@pytest.mark.usefixtures("gpu")
def test_where_the_driver_tells_nothing_its_cuda_version_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert CudaStopwatch(GPU).machine()["driver"].startswith("CUDA")
    stopwatch._driver.cache_clear()


@pytest.mark.parametrize(("each", "runs"), [(10.0, LEAST), (0.1, 10), (1e-4, MOST)])
def test_a_time_is_the_median_of_replays_of_a_captured_graph(
    each: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a second: three runs at least."""
    clock, log = SimpleNamespace(time=0.0, count=0), []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = clock.time

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: "Event") -> float:
            return 1e3 * (end.at - self.at)

    class Graph:
        def replay(self) -> None:
            log.append("replay")
            clock.count += 1
            clock.time += each * (3 if clock.count == 3 else 1)  # one that was disturbed

    def capture(graph: Graph, device: torch.device, run: Callable[[], object], pool: str) -> None:
        assert (device, pool) == (GPU, "pool")
        log.append("capture")
        run()

    here = type("Here", (), {"__enter__": lambda self: None, "__exit__": lambda self, *_: None})()
    monkeypatch.setattr(stopwatch, "beside", lambda device: here)
    monkeypatch.setattr(stopwatch, "capture", capture)
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock.time)
    for name, value in {
        "Event": Event,
        "CUDAGraph": Graph,
        "device": lambda device: here,
        "synchronize": lambda device: None,
        "graph_pool_handle": lambda: "pool",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    assert CudaStopwatch(GPU).seconds(lambda: log.append("run"), 1.0) == pytest.approx(each)
    assert log[:4] == ["run", "capture", "run", "replay"], "first what can't be captured"
    assert abs(log.count("replay") - 1 - runs) <= 2
