"""States ops: a decorated, annotated function is an op of torch.library's namespace `marfast`,
or of the name that the package has in a build of another (hub/).

The function gives name, schema, defaults and documentation; its body stays empty. The rest is told
by the op's own decorators, and gets the arguments bound by name, as `a.x` and `a.times`:

    @op(backends=("triton", "cpu"))
    def double(x: Tensor, times: int = 1) -> Tensor:
        \"\"\"x, doubled so many times.\"\"\"

    @double.check           raises ValueError or TypeError on arguments that no backend takes
    @double.check_values    the same for what tensors hold, where they can be read without waiting:
                            on the CPU
    @double.fake            an empty tensor with the result's shape and dtype
    @double.reference       the definition, plain PyTorch; also what derivatives are taken of, in
                            either mode, and what FLOPs are counted of
    @double.recorded        how a call runs of which gradients are recorded, where that isn't by the
                            reference's vector-Jacobian product; None for a call where it is
    @double.flops           how many there are, where they aren't counted of the reference
    @double.example         random arguments by name, from a `Draw`
    @double.shorten         the same call with little work, where a call may be long

A backend is a file of the folder, `cpu.py`, with `can_run(a)`, which has no side effect and is the
only place that knows a limit, and `run(a)`. It is imported at its first use. Every op has a backend
`torch`, which can run everywhere: without a file of its own it is the reference's formula.
"""

import functools
import inspect
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, ParamSpec

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from marfast.errors import ArgumentError
from marfast.ops import choice, flops
from marfast.ops.backend import Args, Backend, Draw, Example
from marfast.ops.flops import Flops
from marfast.ops.runtime import check_memory
from marfast.ops.schema import schema_of
from marfast.ops.transforms import transforms

__all__ = [
    "OPS",
    "Args",
    "Availability",
    "Backend",
    "Draw",
    "Example",
    "Op",
    "backends",
    "op",
    "which",
]

P = ParamSpec("P")
OPS: dict[str, "Op[Any]"] = {}
NAMESPACE, _, _ = __name__.partition(".")
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


class Op(Generic[P]):
    """An op, called as the function that states it.

    Args:
        statement: annotated as torch.library.infer_schema reads it, one tensor returned.
        backends: what can run it besides the reference's formula.
        differentiable: whether gradients flow backward; an op that samples has none.
        transformed: where torch.func and forward-mode derivatives don't take it, what they take.
    """

    def __init__(
        self,
        statement: Callable[P, Tensor],
        backends: Sequence[Backend] = (),
        differentiable: bool = True,
        transformed: str = "",
    ) -> None:
        self.transformed = transformed
        functools.update_wrapper(self, statement)
        self.name = statement.__name__
        parameters = inspect.signature(statement).parameters.values()
        names = [parameter.name for parameter in parameters]
        defaults = [p.default for p in parameters if p.default is not p.empty]
        self.bind: Callable[..., Args] = namedtuple(self.name, names, defaults=defaults)  # type: ignore[misc]
        formula = Backend("torch", lambda _: (True, ""), self._run_reference)
        reference = replace(formula, name="reference", on_request=True)
        self.backends = {b.name: b for b in (formula, reference, *backends)}

        _LIBRARY.define(self.name + schema_of(statement))
        qualified = f"{NAMESPACE}::{self.name}"
        self.packet: Any = getattr(getattr(torch.ops, NAMESPACE), self.name)
        self._overload = self.packet.default
        _LIBRARY.impl(self.name, self._run, "CompositeExplicitAutograd")
        torch.library.register_fake(qualified, self._run_fake, lib=_LIBRARY)
        recording = Info(self._backward, _keep_inputs) if differentiable else Info(None, None)
        self._record = make_autograd_impl(self._overload, recording)
        _LIBRARY.impl(self.name, self._run_autograd, "Autograd", with_keyset=True)
        _LIBRARY.impl(self.name, self._run_transformed, "FuncTorchBatched")  # torch.vmap
        self._check_values: Callable[[Args], None] | None = None
        self.examples: dict[str, Example] = {}
        self.shortened: Callable[[Args], Args] = lambda a: a
        self.counted: Flops = lambda count, a: count(self.plain, *a)
        self._recorded: Callable[[Args], Tensor | None] = lambda a: None
        OPS[self.name] = self
        flops.register(self)

    def check(self, function: Callable[[Args], None]) -> Callable[[Args], None]:
        self._check = function
        return function

    def check_values(self, function: Callable[[Args], None]) -> Callable[[Args], None]:
        self._check_values = function
        return function

    def fake(self, function: Callable[[Args], Tensor]) -> Callable[[Args], Tensor]:
        self._fake = function
        return function

    def reference(self, function: Callable[[Args], Tensor]) -> Callable[[Args], Tensor]:
        self._reference = function
        return function

    def shorten(self, function: Callable[[Args], Args]) -> Callable[[Args], Args]:
        self.shortened = function
        return function

    def recorded(
        self, function: Callable[[Args], Tensor | None]
    ) -> Callable[[Args], Tensor | None]:
        self._recorded = function
        return function

    def flops(self, function: Flops) -> Flops:
        self.counted = function
        return function

    def example(self, function: Example) -> Example:
        self.examples[""] = function
        return function

    def another_example(self, name: str) -> Callable[[Example], Example]:
        """Of what the first one doesn't reach."""

        def enter(function: Example) -> Example:
            self.examples[name] = function
            return function

        return enter

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        result: Tensor = self._overload(*args, **kwargs)
        return result

    def plain(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the reference gives for these arguments, outside of the dispatcher."""
        return self._reference(self.bind(*args, **kwargs))

    def example_args(
        self,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        seed: int = 0,
        example: Example | None = None,
    ) -> Args:
        """The bound arguments of the op's example, or of another one."""
        draw = Draw(dtype, torch.device(device), torch.Generator("cpu").manual_seed(seed))
        return self.bind(**(example or self.examples[""])(draw))

    def _run_autograd(self, keys: Any, *args: Any) -> Tensor:
        """What the dispatcher calls first. A formula for backward alone would drop tangents."""
        if transforms(args):
            return self._run_transformed(*args)
        result: Tensor
        if torch.is_grad_enabled() and any_requires_grad(*args):
            own = None if choice.forced() == "reference" else self._recorded(self.bind(*args))
            result = self._record(keys, *args) if own is None else own
        else:
            with torch._C._AutoDispatchBelowAutograd():
                result = self._overload.redispatch(keys & torch._C._after_autograd_keyset, *args)
        return result

    def _run_transformed(self, *args: Any) -> Tensor:
        """By torch's own operators, each of which can be transformed."""
        if self.transformed:
            raise NotImplementedError(
                f"{self.name}: torch.func's transforms and forward-mode derivatives don't take it; "
                f"they take {self.transformed}"
            )
        # dense, for torch's own formulas can't do without everywhere
        a = self.bind(*tree_map_only(Tensor, Tensor.contiguous, args))
        self._check(a)
        return self._reference(a)

    def _run(self, *args: Any) -> Tensor:
        a = self.bind(*args)  # with the defaults, which torch's dispatcher leaves out
        self._check(a)
        if self._check_values is not None and a[0].device.type == "cpu":
            self._check_values(a)
        return choice.choose(self, a).run(a)

    def _run_reference(self, a: Args) -> Tensor:
        check_memory(**a._asdict())
        return self._reference(a)

    def _run_fake(self, *args: Any) -> Tensor:
        a = self.bind(*args)
        self._check(a)
        return self._fake(a)

    def _backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The reference's vector-Jacobian product, by recomputation; differentiable again."""
        values = list(ctx.values)
        needed = tree_leaves(ctx.needs_input_grad)
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            for place, tensor in zip(ctx.tensor_places, ctx.saved_tensors, strict=True):
                # A view each: a tensor passed twice gets a gradient for each place.
                values[place] = tensor.view_as(tensor)
            wanted = [place for place in ctx.tensor_places if needed[place]]
            gradients = torch.autograd.grad(
                self.plain(*tree_unflatten(values, ctx.structure)),
                [values[place] for place in wanted],
                grad,
                create_graph=create_graph,
                allow_unused=True,
            )
        result: list[Tensor | None] = [None] * len(values)
        for place, gradient in zip(wanted, gradients, strict=True):
            result[place] = gradient
        # as many as arguments were given: the dispatcher leaves defaults out
        return tuple(tree_unflatten(result, ctx.structure)[: len(ctx.needs_input_grad)])


def op(
    backends: Sequence[str] = (), differentiable: bool = True, transformed: str = ""
) -> Callable[[Callable[P, Tensor]], Op[P]]:
    """Makes the op that a function states, in the file of an op's folder that it stands in.

    Args:
        backends: the folder's other files.
        differentiable, transformed: as for `Op`.
    """

    def stated(statement: Callable[P, Tensor]) -> Op[P]:
        files = [Backend.in_folder(statement.__module__, name) for name in backends]
        return Op(statement, files, differentiable, transformed)

    return stated


def _looked_through(*args: Any) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for v in tree_leaves(args))


any_requires_grad: Callable[..., bool] = getattr(
    torch._C,
    "_any_requires_grad",  # not in torch 2.6
    _looked_through,
)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Arguments are flattened, because some are lists of tensors."""
    values, ctx.structure = tree_flatten(inputs)
    ctx.tensor_places = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    ctx.save_for_backward(*(values[i] for i in ctx.tensor_places))
    ctx.values = [None if isinstance(value, Tensor) else value for value in values]


def which(op: str, *args: Any) -> str:
    """The name of the backend that would run this call."""
    if op not in OPS:
        raise ArgumentError("op", repr(op), f"known are {', '.join(OPS)}")
    chosen = OPS[op]
    return choice.choose(chosen, chosen.bind(*args)).name


class Availability(NamedTuple):
    """A line of `backends()`: whether a backend can run an op's example here, and if not, why."""

    op: str
    backend: str
    can_run: bool
    reason: str


def backends(device: str | torch.device = "cpu") -> list[Availability]:
    """Every op x every backend of this version: can it run the op's float32 example here?"""
    table = []
    for op in OPS.values():
        a = op.example_args(device=device)
        for name in choice.ORDER:
            if name in op.backends:
                ok, reason = op.backends[name].can_run(a)
                table.append(Availability(op.name, name, ok, reason))
    return table
