"""A CUDA graph's stand-in: records what a function does to tensors, and does it again on demand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

SYNCHRONISE = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select")
"""A capture forbids them; so does a loop that is not to wait."""


class Recorder(TorchDispatchMode):
    """Operators of torch, each with its result, and launches of interpreted kernels, in order.

    As in a graph, arguments are fixed when it is recorded, and tensors are places in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], Any]] = []
        self.launches: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.name() not in SYNCHRONISE, f"{func.name()} waits for the device"
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:

            def again() -> None:
                fresh = func(*args, **(kwargs or {}))
                if fresh.data_ptr() != result.data_ptr():  # else it wrote in place
                    result.copy_(fresh)

            if "empty" not in func.name():
                self.steps.append(again)
        return result

    def launch(self, original: Any, kernel: Any, *args: Any, **kwargs: Any) -> None:
        self.launches.append(kernel.__name__)
        self.steps.append(lambda: original(kernel, *args, **kwargs))
        with torch.utils._python_dispatch._disable_current_modes():
            original(kernel, *args, **kwargs)

    def replay(self) -> None:
        for step in self.steps:
            step()


def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor, Recorder]:
    """How to do it again, where the result then lies, and what was recorded."""
    recorder, original = Recorder(), InterpretedFunction.run

    def run(kernel: Any, *args: Any, **kwargs: Any) -> None:
        recorder.launch(original, kernel, *args, **kwargs)

    InterpretedFunction.run = run
    try:
        with recorder:
            result = function()
    finally:
        InterpretedFunction.run = original
    return recorder.replay, result, recorder
