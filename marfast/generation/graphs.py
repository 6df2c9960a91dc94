"""The loop's iterations as graphs: captured once, replayed for other labels, seeds and guidance.

A graph is of one iteration; the K graphs of a generation share the tensors of one `Loop`. They are
made on request (`marfast.warmup`), kept while they fit into `GRAPH_MEMORY`, and used by every later
generation of the same key. Step noise is drawn inside the graphs, by generators of their own, which
take the caller's state before a replay and give it back after.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from marfast.checkpoints import Settings
from marfast.generation.loop import Loop, Progress
from marfast.generation.randomness import Randomness
from marfast.model.mar import FastMAR, Schedule
from marfast.ops import choice

GRAPH_MEMORY = 4 << 30
"""Bytes that the graphs of one model may hold on to."""


class Graph(Protocol):
    """What a launched sequence of kernels is recorded by."""

    def capture(self, function: Callable[[], None]) -> None:
        """Record what `function` launches; its results may be garbage until a replay."""

    def replay(self) -> None:
        """Launch it all again, on the same tensors."""


class CaptureFailed(RuntimeError):
    """A loop can't be kept as graphs; generations launch kernel by kernel."""


class Device(Protocol):
    """Where graphs are made, and what memory they hold."""

    def prepare(self, function: Callable[[], None]) -> None:
        """Run it outside a capture: libraries set themselves up, kernels are compiled."""

    def pool(self) -> Any:
        """What graphs that read each other's tensors share."""

    def graph(self, generators: Sequence[torch.Generator], pool: Any) -> Graph:
        """An empty one, which may draw from `generators`."""

    def reserved(self) -> int:
        """Bytes."""


class CudaGraph:
    """A CUDA graph of one device."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator], pool: Any):
        self._graph = torch.cuda.CUDAGraph()
        self._device, self._pool = device, pool
        for generator in generators:
            self._graph.register_generator_state(generator)

    def capture(self, function: Callable[[], None]) -> None:
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph, pool=self._pool):
            function()

    def replay(self) -> None:
        with torch.cuda.device(self._device):
            self._graph.replay()


class Cuda:
    """A CUDA device."""

    def __init__(self, device: torch.device):
        self.device = device

    def prepare(self, function: Callable[[], None]) -> None:
        with torch.cuda.device(self.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                function()
            torch.cuda.current_stream().wait_stream(side)

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def graph(self, generators: Sequence[torch.Generator], pool: Any) -> Graph:
        return CudaGraph(self.device, generators, pool)

    def reserved(self) -> int:
        return torch.cuda.memory_reserved(self.device)


class CapturedLoop:
    """The K iterations of one key, recorded."""

    def __init__(self, loop: Loop, device: Device):
        self.loop = loop
        own = loop.randomness
        before = device.reserved()
        iterations = [partial(loop.iteration, k) for k in range(loop.settings.num_iter)]
        for iteration in iterations:
            device.prepare(iteration)
        pool = device.pool()
        self.graphs = []
        for iteration in iterations:
            graph = device.graph(own.device_generators, pool)
            try:
                graph.capture(iteration)
            except RuntimeError as error:
                raise CaptureFailed(str(error)) from error
            self.graphs.append(graph)
        self.bytes = max(0, device.reserved() - before)
        self.weights = loop.model.weights  # the graphs read them
        del loop.model  # it may be what keeps these graphs

    def run(
        self,
        labels: Tensor,
        randomness: Randomness,
        settings: Settings,
        progress: Progress | None,
    ) -> Tensor:
        """As `sample_tokens`."""
        loop, own = self.loop, self.loop.randomness
        loop.fill(labels, randomness, settings)
        loop.randomness = own
        pairs = list(zip(own.device_generators, randomness.device_generators, strict=True))
        for mine, theirs in pairs:
            mine.set_state(theirs.get_state())
        for k, graph in enumerate(self.graphs):
            with loop.range(k):  # those of the capture are gone
                graph.replay()
            if progress:
                progress(k + 1, len(self.graphs))
        for mine, theirs in pairs:
            theirs.set_state(mine.get_state())
        return loop.tokens.clone()


class Graphs:
    """A model's captured loops, the least recently used first."""

    def __init__(self, device: Device, limit: int = GRAPH_MEMORY):
        self.device = device
        self.limit = limit
        self.kept: OrderedDict[Hashable, CapturedLoop] = OrderedDict()

    def find(self, key: Hashable) -> CapturedLoop | None:
        found = self.kept.get(key)
        if found is not None:
            self.kept.move_to_end(key)
        return found

    def capture(self, key: Hashable, loop: Loop) -> None:
        """Record `loop`, whose randomness is its own; CaptureFailed says why it can't be."""
        captured = CapturedLoop(loop, self.device)
        if captured.bytes > self.limit:
            raise CaptureFailed(f"it needs {captured.bytes} bytes; graphs may hold {self.limit}")
        self.kept[key] = captured
        while sum(entry.bytes for entry in self.kept.values()) > self.limit:
            self.kept.popitem(last=False)


def key_of(
    model: FastMAR,
    images: int,
    randomness: Randomness,
    settings: Settings,
    schedule: Schedule,
) -> Hashable:
    """What one captured loop is for; all else may change from replay to replay."""
    module, kind = model.module, model.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return (
        images,
        randomness.layout,
        settings.cfg != 1.0,
        replace(settings, cfg=1.0, cfg_schedule="constant"),
        schedule[0].data_ptr(),
        model.dtype,
        autocast,
        choice.forced(),
        tuple(weight.data_ptr() for weight in (*module.parameters(), *model.weights)),
    )
