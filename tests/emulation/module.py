"""Calls an op by its "cuda" backend, its kernels run by the emulator (fixture `emulated`); an op
leaves its arguments as they are."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from marfast.ops import choice


def on_cuda(op: Any, *args: Any) -> Tensor:
    given = [part for part in tree_leaves(args) if isinstance(part, Tensor)]
    before = [part.clone() for part in given]
    with choice.backend("cuda"), choice.used() as used:
        result: Tensor = op(*args)
    for now, then in zip(given, before, strict=True):
        assert torch.equal(now, then), "the op writes to what it is given"
    assert set().union(*used.values()) == {"cuda"}
    return result
