"""How graphs are captured, with a made-up driver in CUDA's place."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from marfast.ops.runtime import capture as captures
from marfast.ops.runtime.capture import beside, capture

GPU = torch.device("cuda", 1)


class Stream:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class State:
    """Of a generator, which a capture may be holding on to."""

    held = False


class Generator:
    def __init__(self, device: torch.device) -> None:
        assert device == GPU
        self.state = State()

    def graphsafe_get_state(self) -> State:
        return self.state

    def graphsafe_set_state(self, state: State) -> None:
        self.state = state


class Driver:
    """One device, whose streams, allocator and default generator are as torch's are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.default = Generator(GPU)
        self.devices: list[torch.device] = []
        self.opened = 0
        self.allocating: list[Any] = []
        self.streams = [Stream("theirs", self.log)]
        monkeypatch.setattr(captures, "_streams", {})
        monkeypatch.setattr(captures, "_failed", [])
        monkeypatch.setattr(torch, "Generator", Generator)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocating)
        for name, value in {
            "device": self.device,
            "Stream": self.open,
            "stream": self.on,
            "current_stream": lambda: self.streams[-1],
            "current_device": lambda: self.devices[-1].index,
            "default_generators": {1: self.default},
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.devices.append(device)
        yield
        self.devices.pop()

    def open(self, device: torch.device) -> Stream:
        assert device == self.devices[-1] == GPU
        self.opened += 1
        return Stream("ours", self.log)

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams.pop()

    def end_allocating(self, device: int, pool: Any) -> None:
        assert device == GPU.index
        if pool not in self.allocating:
            raise RuntimeError("not currently recording to mempool_id")
        self.allocating.remove(pool)


class Graph:
    """As torch.cuda.CUDAGraph: a failed capture lets go of nothing."""

    def __init__(self, driver: Driver, fails_at: str = "") -> None:
        self.driver, self.fails_at = driver, fails_at

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        assert self.driver.streams[-1].name == "ours"
        assert capture_error_mode == "thread_local"
        self.state, self.pool = self.driver.default.state, pool
        self.state.held = True
        self.driver.allocating.append(pool)
        if self.fails_at == "begin":
            raise RuntimeError("begin")

    def capture_end(self) -> None:
        if self.fails_at:
            raise RuntimeError("capture invalidated")
        self.driver.allocating.remove(self.pool)
        self.state.held = False


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def test_there_is_one_stream_which_waits_and_is_waited_for(driver: Driver) -> None:
    for _ in range(3):
        with beside(GPU):
            driver.log.append("work")
    turn = ["ours waits for theirs", "work", "theirs waits for ours"]
    assert (driver.log, driver.opened) == (3 * turn, 1)


def test_a_capture_binds_neither_the_default_generator_nor_collections(driver: Driver) -> None:
    own = driver.default.state
    seen: list[bool] = []

    def work() -> None:
        seen.extend([driver.default.state is own, own.held, gc.isenabled()])

    capture(Graph(driver), GPU, work, "pool")  # type: ignore[arg-type]
    assert seen == [True, False, False]
    assert gc.isenabled()
    assert (driver.default.state, driver.allocating) == (own, [])


@pytest.mark.parametrize("fails_at", ["begin", "work", "end"])
def test_a_failed_capture_leaves_everything_as_it_was(driver: Driver, fails_at: str) -> None:
    own = driver.default.state

    def work() -> None:
        if fails_at == "work":
            raise ValueError("work")

    graph = Graph(driver, fails_at)
    expected = ValueError if fails_at == "work" else RuntimeError
    with pytest.raises(expected, match=fails_at if fails_at != "end" else "invalidated"):
        capture(graph, GPU, work, "pool")  # type: ignore[arg-type]
    assert driver.default.state is own
    assert not own.held
    assert driver.allocating == []
    assert gc.isenabled()
    assert captures._failed == [graph], "torch's allocators may still ask it"
    assert driver.streams[-1].name == "theirs"
    capture(Graph(driver), GPU, lambda: None, "pool")  # type: ignore[arg-type]
    assert driver.allocating == []
