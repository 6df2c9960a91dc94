"""Where a loop's graphs are captured and replayed, and what memory they hold."""

import contextlib
import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from marfast.ops.runtime.capture import beside, capture


class Graph(Protocol):
    """What a launched sequence of kernels is recorded by."""

    def capture(self, function: Callable[[], None]) -> None:
        """Record what `function` launches; its results may be garbage until a replay."""

    def replay(self) -> None:
        """Launch it all again, on the same tensors."""


class Device(Protocol):
    """What makes graphs."""

    device: torch.device

    def prepare(self, function: Callable[[], None]) -> None:
        """Run it outside a capture: libraries set themselves up, kernels are compiled."""

    def pool(self) -> Any:
        """What the graphs of a loop have their memory from."""

    def graph(self, generators: Sequence[torch.Generator], pool: Any) -> Graph:
        """An empty one, which may draw from `generators`."""

    def used(self) -> int:
        """Bytes of the device that are not free, once nothing is kept for later."""

    def held_by(self, pool: Any) -> int:
        """Bytes that a pool has taken from the device."""

    def turns(self) -> AbstractContextManager[Any]:
        """Entered for each use of the same tensors, in turn: after all that was launched in the one
        before, on whatever stream."""


class CudaGraph:
    """A CUDA graph of one device."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator], pool: Any):
        self._graph = torch.cuda.CUDAGraph()
        self._device, self._pool = device, pool
        for generator in generators:
            self._graph.register_generator_state(generator)

    def capture(self, function: Callable[[], None]) -> None:
        capture(self._graph, self._device, function, self._pool)

    def replay(self) -> None:
        with torch.cuda.device(self._device):
            self._graph.replay()


class Cuda:
    """A CUDA device."""

    def __init__(self, device: torch.device):
        self.device = device

    def prepare(self, function: Callable[[], None]) -> None:
        with beside(self.device):
            function()

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def graph(self, generators: Sequence[torch.Generator], pool: Any) -> Graph:
        return CudaGraph(self.device, generators, pool)

    def used(self) -> int:
        torch.cuda.synchronize(self.device)
        gc.collect()
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        return int(total - free)

    def held_by(self, pool: Any) -> int:
        segments = torch.cuda.memory_snapshot()
        own = [s for s in segments if tuple(s.get("segment_pool_id", ())) == tuple(pool)]
        return sum(int(segment["total_size"]) for segment in own)

    def turns(self) -> AbstractContextManager[Any]:
        return _Turns(self.device)


class _Turns(contextlib.AbstractContextManager["_Turns"]):
    def __init__(self, device: torch.device):
        self.device = device
        self.done: torch.cuda.Event | None = None

    def __enter__(self) -> "_Turns":
        if self.done is not None:
            torch.cuda.current_stream(self.device).wait_event(self.done)
        return self

    def __exit__(self, *_: object) -> None:
        with torch.cuda.device(self.device):
            self.done = torch.cuda.Event()
            self.done.record(torch.cuda.current_stream(self.device))
