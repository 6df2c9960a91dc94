"""How a module gets other methods: by a class of its own, derived from the one it has.

So methods see the module that they are called on (a copy, a replica), keep no cycle alive, and
whoever sets a method on the instance goes before them.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from marfast.model.own import OWN_CLASS, STATE
from marfast.ops import transforms

if TYPE_CHECKING:
    from marfast.drop_in.methods import FastMethod

Function = TypeVar("Function", bound=Callable[..., Any])

is_exporting: Callable[[], bool] = getattr(
    torch.compiler,
    "is_exporting",  # torch 2.7; before, outside of what is compiled, export alone says it compiles
    torch.compiler.is_compiling,
)


def install(part: nn.Module, methods: Iterable["FastMethod"]) -> None:
    """Put them in the place of the module's own."""
    found = {method.name: method for method in methods}
    part.__dict__[STATE] = found
    part.__class__ = _class_for(type(part), tuple(found))


def uninstall(part: nn.Module) -> None:
    """Undo `install`."""
    part.__dict__.pop(STATE, None)
    own = vars(type(part)).get(OWN_CLASS)
    if own is not None:
        part.__class__ = own


def installed(part: Any) -> Mapping[str, "FastMethod"]:
    """What stands in for methods of this one module, by their names."""
    found: Mapping[str, FastMethod] = getattr(part, "__dict__", {}).get(STATE, {})
    return found


def uncompiled(function: Function) -> Function:
    """torch.compiler.disable, but for the import of the compiler where nobody has imported it."""
    disabled: list[Function] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    call._torchdynamo_disable_msg = (  # type: ignore[attr-defined]
        "marfast's code is not compiled; marfast.restore(model) gives the model's own code back"
    )
    return call  # type: ignore[return-value]


def _class_for(own: type[Any], names: tuple[str, ...]) -> type[Any]:
    def reduce(self: Any, protocol: Any) -> Any:
        made = super(fast, self).__reduce_ex__(protocol)
        if type(self) is not fast or not isinstance(made, tuple):
            return made
        function, arguments, *rest = made
        arguments = tuple(own if argument is fast else argument for argument in arguments)
        return (_revive, (names, function, arguments), *rest)

    body = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    body |= {name: _stand_in(own, name) for name in names}
    kind: Any = type(own)
    fast: type[Any] = kind(own.__name__, (own,), {**body, OWN_CLASS: own, "__reduce_ex__": reduce})
    return fast


def _revive(names: tuple[str, ...], function: Callable[..., Any], arguments: Any) -> Any:
    """A copy or an unpickled module, whose state is yet to come."""
    made = function(*arguments)
    made.__class__ = _class_for(type(made), names)
    return made


def _stand_in(own: type[Any], name: str) -> Callable[..., Any]:
    """The method in the class: the fast one where it is there and may run."""
    method = getattr(own, name)

    @uncompiled
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        theirs = functools.partial(_on_this_machine, method, self)
        fast = self.__dict__.get(STATE, {}).get(name)
        if fast is None:
            return theirs(*args, **kwargs)
        is_replica = getattr(self, "_is_replica", False)  # its tensors are no parameters
        if self.training != fast.in_training or is_replica or _is_someone_elses():
            fast.passed_by(self)
            if self.training:
                fast.warn_of_training(self)
            return theirs(*args, **kwargs)
        return fast(self, theirs, *args, **kwargs)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_exporting():  # which may read what it finds, and go no way that can't be read
            return method(self, *args, **kwargs)
        return run(self, *args, **kwargs)

    return call


def _is_someone_elses() -> bool:
    """Whether the call is traced, or transformed by torch.func or forward-mode derivatives."""
    return bool(torch._C._get_tracing_state() is not None or transforms.anywhere())


def _on_this_machine(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return own(*args, **kwargs)
    except (AssertionError, RuntimeError) as error:
        said = str(error).upper()  # a build with CUDA says that it found no NVIDIA driver
        if torch.cuda.is_available() or not ("CUDA" in said or "NVIDIA" in said):
            raise
        raise RuntimeError(
            "the module's own code asks for CUDA, which is not here: call it in eval mode, where "
            "marfast's code runs in its place, or write .to(x.device) for .cuda() in it"
        ) from error
