"""Calls an op by its "cuda" backend, its kernels run by the emulator (fixture `emulated`)."""

from typing import Any

from torch import Tensor

from marfast.ops import choice


def on_cuda(op: Any, *args: Any) -> Tensor:
    with choice.backend("cuda"), choice.used() as used:
        result: Tensor = op(*args)
    assert set().union(*used.values()) == {"cuda"}
    return result
