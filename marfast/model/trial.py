"""A copy of a module to try its code on: its own parameters, nobody's hooks."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from marfast.model.own import STATE, methods_set_on, own_class

Module = TypeVar("Module", bound=nn.Module)

SAME = 1e-3
"""How far, relative to the largest value, rounding may move what is computed in float32."""


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two results differ by no more than rounding; never where one is not finite."""
    if ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= SAME * theirs.abs().max())


def uncompiled() -> AbstractContextManager[Any]:
    """What a module has torch.compile for runs as it is written: compiling takes long, and draws
    other random numbers."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def trial_of(module: Module) -> Module:
    """A copy by the classes' own code, in eval mode and float32, that shares the parameters.

    A parameter whose values are all the same, as a fresh model's may be, hides what it is used for:
    the copy has other values there.
    """
    copies: dict[nn.Module, nn.Module] = {}
    copy: Module = _copy(module, copies)  # type: ignore[assignment]
    owners = [(part, name) for part in copies.values() for name in part._parameters]
    tensors = [part._parameters[name] for part, name in owners]
    given = [tensor for tensor in tensors if tensor is not None]
    values = dict(zip(map(id, given), _values(given), strict=True))
    for (part, name), tensor in zip(owners, tensors, strict=True):
        if tensor is not None:
            part._parameters[name] = values[id(tensor)]
    return copy


def _copy(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in copies:
        kind: Any = own_class(module)
        copy = kind.__new__(kind)
        left_out = {STATE, "_compiled_call_impl", *methods_set_on(module)}
        copy.__dict__ = {k: v for k, v in module.__dict__.items() if k not in left_out}
        for hooks in ("_forward_hooks", "_forward_pre_hooks"):
            copy.__dict__[hooks] = type(module.__dict__[hooks])()
        copies[module] = copy
        copy.__dict__["training"] = False
        copy.__dict__["_parameters"] = dict(module._parameters)
        copy.__dict__["_buffers"] = dict(module._buffers)
        copy.__dict__["_modules"] = {
            name: None if child is None else _copy(child, copies)
            for name, child in module._modules.items()
        }
    return copies[module]


def _values(parameters: Sequence[Tensor]) -> list[nn.Parameter]:
    """Of the trial's parameters."""
    flat = [p.detach() for p in parameters]
    floats = [p for p in flat if p.is_floating_point() and p.numel() > 1]
    ends = [torch.stack(p.aminmax()).double() for p in floats]
    constant = dict.fromkeys(map(id, floats), False)
    if ends:
        low, high = torch.stack([end.to(ends[0].device) for end in ends]).unbind(1)
        constant = dict(zip(map(id, floats), (low == high).tolist(), strict=True))
    generator = torch.Generator("cpu").manual_seed(0)
    values = []
    for p in flat:
        value = p.float() if p.is_floating_point() else p
        if constant.get(id(p)):
            size = p.shape[-1] ** -0.5 if p.dim() == 2 else 0.1
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float32, device="cpu")
            value = value + size * drawn.to(p.device)
        values.append(nn.Parameter(value, requires_grad=False))
    return values
