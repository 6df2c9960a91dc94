"""Graphs without a GPU: what a function launches is recorded as operators, and a replay runs them
again on the same tensors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.launches.append((func, args, kwargs or {}, result))
        return result


class RecordedGraph:
    """As `generation.device.CudaGraph`. A replay writes into the tensors that the capture made,
    which every later graph of the pool reads; views need no launch."""

    def __init__(self, fail: str = "", generators: int = 0) -> None:
        self.fail = fail
        self.generators = generators
        self.replays = 0

    def capture(self, function: Callable[[], None]) -> None:
        if self.fail:
            raise RuntimeError(self.fail)
        with _Recording() as recording:
            function()
        self.launches = recording.launches
        for func, *_, result in self.launches:  # garbage until a replay
            if func.is_view or func._schema.is_mutable:
                continue
            for tensor in _tensors(result):
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.launches:
            if func.is_view:
                continue
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old is not new:
                    old.copy_(new)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


class Recorder:
    """As `generation.device.Cuda`; each pool takes `bytes`, and `elsewhere` some that it doesn't
    know of."""

    device = torch.device("cpu")

    def __init__(self, bytes: int = 100, fail: str = "", elsewhere: int = 0) -> None:
        self.bytes = bytes
        self.fail = fail
        self.elsewhere = elsewhere
        self.held = 0
        self.prepared = 0
        self.made: list[RecordedGraph] = []

    def prepare(self, function: Callable[[], None]) -> None:
        self.prepared += 1
        function()

    def pool(self) -> Any:
        self.held += self.bytes + self.elsewhere
        return object()

    def graph(self, generators: Sequence[torch.Generator], pool: Any) -> RecordedGraph:
        assert all(isinstance(generator, torch.Generator) for generator in generators)
        self.made.append(RecordedGraph(self.fail, len(generators)))
        return self.made[-1]

    def used(self) -> int:
        return self.held

    def held_by(self, pool: Any) -> int:
        return self.bytes

    def turns(self) -> AbstractContextManager[Any]:
        return nullcontext()
