"""What of a module is its owner's own: hooks and methods of an instance, which have to run; and
whether its code has changed since it was looked at."""

from collections.abc import Callable, Hashable
from enum import Enum
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from marfast.ops.runtime.capture import LOCK

OWN_CLASS = "_marfast_own_class"
"""In a class that `accelerate` made: the class that it stands for."""
STATE = "_marfast"
"""In an accelerated module: what `accelerate` keeps for its methods."""

_STANDARD = frozenset(vars(nn.Module())) | {STATE, "_is_replica", "_former_parameters"}
_PLAIN = (bool, int, float, str, type(None), Enum)
_METHODS = (FunctionType, staticmethod, classmethod, property)


def parts_of(module: nn.Module) -> list[nn.Module]:
    """`module.modules()`, without its cost."""
    parts = [module]
    seen = {module}
    for part in parts:
        for child in part._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                parts.append(child)
    return parts


def named_parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """`module.named_parameters()`, without its cost."""
    found: dict[str, Tensor] = {}

    def collect(part: nn.Module, path: str) -> None:
        for name, parameter in part._parameters.items():
            if parameter is not None:
                found[path + name] = parameter
        for name, child in part._modules.items():
            if child is not None:
                collect(child, f"{path}{name}.")

    collect(module, "")
    return found


def own_class(part: object) -> type[Any]:
    """Its class, as it was before `accelerate`."""
    found: type[Any] = vars(type(part)).get(OWN_CLASS, type(part))
    return found


def _extras(owner: object) -> list[str]:
    """The names of an instance's attributes, but for those that every module has."""
    return [name for name in vars(owner) if name not in _STANDARD]


def methods_set_on(owner: object) -> list[str]:
    """The methods that this instance has in place of its class's."""
    kind, own = type(owner), vars(owner)
    return [
        name
        for name in _extras(owner)
        if callable(own[name]) and callable(getattr(kind, name, None))
    ]


def is_touched(part: nn.Module) -> bool:
    """Whether calling this module runs more than its class's `forward`."""
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part.__dict__.get("_compiled_call_impl") is not None
        or methods_set_on(part)
    )


def anyone_watches() -> bool:
    """Whether there are hooks for all modules of the process."""
    return bool(nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks)


def _told_of(value: object) -> list[object]:
    """What can be told of an attribute by comparing."""
    if isinstance(value, _PLAIN) or callable(value):
        return [value]
    told: list[object] = [type(value)]
    if isinstance(value, tuple):
        told.extend(item for item in value if isinstance(item, _PLAIN))
    elif not isinstance(value, Tensor) and hasattr(value, "__dict__"):
        told.extend(item for item in vars(value).values() if isinstance(item, _PLAIN))
    return told


def _code_of(kind: type[Any]) -> list[object]:
    """A class's own functions and its bases', below torch's; of torch's own classes, `forward`."""
    if kind.__module__.startswith("torch."):
        return [getattr(kind, "forward", None)]
    bases = kind.__mro__[: kind.__mro__.index(nn.Module if nn.Module in kind.__mro__ else object)]
    return [v for base in bases for v in vars(base).values() if type(v) in _METHODS]


def fingerprint(module: nn.Module) -> tuple[object, ...]:
    """Changes when a class in it does, a method of one, a submodule or a setting. Hooks and methods
    of instances are not in it: they always run."""
    found: list[object] = []
    kinds: dict[type[Any], None] = {}
    for part in parts_of(module):
        kind, own = own_class(part), vars(part)
        kinds[kind] = None
        found.append(kind)
        for name in _extras(part):
            value = own[name]
            if type(value) in _PLAIN:
                found.append(value)
            elif not callable(getattr(kind, name, None)):
                found.extend(_told_of(value))
                kinds[type(value)] = None
    for kind in kinds:
        found.extend(_code_of(kind))
    return tuple(found)


class Verdicts:
    """Why a module's own code has to run, found out once for each of its modes and again when its
    code has changed; empty where it needn't."""

    def __init__(self) -> None:
        self._found: tuple[tuple[object, ...], dict[Hashable, str]] = ((), {})

    def of(self, module: nn.Module, mode: Hashable, find_out: Callable[[], str]) -> str:
        now = fingerprint(module)
        code, verdicts = self._found
        if code == now and mode in verdicts:
            return verdicts[mode]
        with LOCK:
            if self._found[0] != now:
                self._found = now, {}
            verdicts = self._found[1]
            if mode not in verdicts:
                verdicts[mode] = find_out()
            return verdicts[mode]

    def known(self) -> list[str]:
        """The reasons that were found."""
        return [reason for reason in self._found[1].values() if reason]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Verdicts.__init__(self)
