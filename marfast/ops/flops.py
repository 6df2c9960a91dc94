"""What torch.utils.flop_counter counts for an op: what it counts for the op's definition, unless
the op says otherwise.

That module comes with Triton, so nothing here imports it: the formulas are added when somebody
else does.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from marfast.ops.op import Op

COUNTER = "torch.utils.flop_counter"

Count = Callable[..., int]
"""Counts a function of some arguments, from their shapes alone."""

Flops = Callable[[Count, Any], int]
"""Of an op's bound arguments."""

_waiting: list["Op[Any]"] = []


def register(op: "Op[Any]") -> None:
    """Have this op counted."""
    if (counter := sys.modules.get(COUNTER)) is not None:
        _add(counter, op)
        return
    if not _waiting:
        sys.meta_path.insert(0, _WhenImported())
    _waiting.append(op)


def _add(counter: ModuleType, op: "Op[Any]") -> None:
    def count(function: Callable[..., object], *args: Any) -> int:
        of_shapes = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), args)
        with torch.no_grad(), counter.FlopCounterMode(display=False) as counted:
            function(*of_shapes)
        return int(counted.get_total_flops())

    def formula(*args: Any, out_val: object = None) -> int:
        return op.counted(count, op.bind(*args))

    counter.register_flop_formula(op.packet, get_raw=True)(formula)


class _WhenImported(MetaPathFinder):
    """Finds the counter as all others would, and adds what is waiting once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load: Callable[[ModuleType], None] = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                while _waiting:
                    _add(module, _waiting.pop())

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
