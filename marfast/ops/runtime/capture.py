"""Capturing CUDA graphs: one stream a device, one capture at a time, nothing spoiled by one that
fails."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

LOCK = threading.RLock()
"""Held by whoever captures, tries or measures: each of these may do the others, in any order, so
that locks of their own would deadlock."""
_streams: dict[torch.device, torch.cuda.Stream] = {}
_failed: list[torch.cuda.CUDAGraph] = []
"""torch's allocators may still ask them."""


@contextlib.contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """On a stream of the device that is not its default one, always the same: after what is
    enqueued, and before what will be."""
    with LOCK, torch.cuda.device(device):
        if device not in _streams:
            _streams[device] = torch.cuda.Stream(device)
        stream, current = _streams[device], torch.cuda.current_stream()
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            current.wait_stream(stream)


def capture(
    graph: torch.cuda.CUDAGraph, device: torch.device, function: Callable[[], object], pool: Any
) -> None:
    """Record what `function` launches into `graph`, whose memory comes from `pool`.

    Other threads may use the device meanwhile, the default generator included: torch binds that to
    a capture while one begins, and lets go of it only where one succeeds, so that a spare state
    stands in for its own then. What `function` raises is raised; the graph is then of no use.
    """
    with beside(device), _no_collection():
        try:
            with _default_generator_aside(device):
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                function()
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        except BaseException:
            _failed.append(graph)
            with contextlib.suppress(RuntimeError):  # where it has ended
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            raise


@contextlib.contextmanager
def _default_generator_aside(device: torch.device) -> Iterator[None]:
    default = torch.cuda.default_generators[torch.cuda.current_device()]
    own = default.graphsafe_get_state()
    default.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
    try:
        yield
    finally:
        default.graphsafe_set_state(own)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """A collection might free what a capture must not."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
