"""Declares ops in torch.library's namespace `marfast` and chooses a backend for each call.

A file of `marfast/ops` describes one op: schema, checks, fake, reference, example, backends. What
is the same for every op is here: the torch.library registrations, the gradient (the reference's,
by recomputation) and the one loop that chooses.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from marfast.errors import ArgumentError
from marfast.ops import native, self_check

ORDER = ("cuda", "triton", "cpu", "reference")
"""Every backend's name, the preferred first."""

Verdict = tuple[bool, str]
"""Whether a backend can run, and if not, why."""


Example = Callable[[torch.dtype, torch.device, torch.Generator], tuple[Any, ...]]
"""Gives arguments that every backend is meant to take."""


class Backend(NamedTuple):
    """One implementation of an op. Both functions take the op's arguments, all of them,
    positionally; `can_run` has no side effect and is the only place that knows a limit."""

    name: str
    can_run: Callable[..., Verdict]
    run: Callable[..., Tensor]
    own_kernel: bool = True  # or the library's
    on_request: bool = False  # taken only when forced: no measured GPU result is committed yet


class Availability(NamedTuple):
    """A line of `backends()`: whether a backend can run an op's example here, and if not, why."""

    op: str
    backend: str
    can_run: bool
    reason: str


class BackendUnavailable(RuntimeError):
    """A forced backend can't run the op with these arguments."""


_LIBRARY = torch.library.Library("marfast", "DEF")
_FORCED: ContextVar[str] = ContextVar(
    "marfast_backend", default=os.environ.get("MARFAST_BACKEND") or "auto"
)
_WATCH: ContextVar["Watch | None"] = ContextVar("marfast_watch", default=None)
OPS: dict[str, "Op"] = {}


class Op:
    """One op of the torch.library namespace `marfast`, called as a function.

    Args:
        schema: as in `torch.library.Library.define`, one tensor returned.
        check: raises ValueError or TypeError on arguments that no backend takes.
        fake: an empty tensor with the result's shape and dtype.
        reference: the definition, plain PyTorch; also what gradients are taken of.
        example: (dtype, device, generator) -> arguments that every backend is meant to take.
        backends: what can run it besides the reference.
        differentiable: whether gradients flow; an op that samples has none.
    """

    def __init__(
        self,
        schema: str,
        *,
        check: Callable[..., None],
        fake: Callable[..., Tensor],
        reference: Callable[..., Tensor],
        example: Example,
        backends: Sequence[Backend] = (),
        differentiable: bool = True,
    ) -> None:
        self.name = schema.partition("(")[0]
        self.example = example
        self.reference = reference
        table = (*backends, Backend("reference", lambda *_: (True, ""), reference))
        self.backends = {backend.name: backend for backend in table}
        self._check = check
        self._fake = fake

        _LIBRARY.define(schema)
        qualified = f"marfast::{self.name}"
        self._overload: Any = getattr(torch.ops.marfast, self.name).default
        self._defaults = tuple(a.default_value for a in self._overload._schema.arguments)
        _LIBRARY.impl(self.name, self._run, "CompositeExplicitAutograd")
        torch.library.register_fake(qualified, self._run_fake, lib=_LIBRARY)
        if differentiable:
            torch.library.register_autograd(
                qualified, self._backward, setup_context=_keep_inputs, lib=_LIBRARY
            )
        OPS[self.name] = self

    def __call__(self, *args: Any) -> Tensor:
        result: Tensor = self._overload(*args)
        return result

    def choose(self, args: tuple[Any, ...]) -> Backend:
        """The first backend, in ORDER, that can run the op with `args` (all of them)."""
        forced = _known(_FORCED.get())
        for name in ORDER if forced == "auto" else (forced,):
            backend = self.backends.get(name)
            if backend is None:
                ok, reason = False, "this version has no such kernel for it"
            elif backend.on_request and forced == "auto":
                ok, reason = False, "it runs on request only"
            else:
                ok, reason = backend.can_run(*args)
                if ok and (reason := self_check.verdict(self, backend, args)):
                    ok = False
            if backend is not None and ok:
                if name == "reference" and forced == "auto":
                    native.warn_if_missing()
                return backend
        raise BackendUnavailable(f"backend {forced!r} can't run {self.name}: {reason}")

    def verdicts(self, args: tuple[Any, ...]) -> dict[str, str]:
        """Why each backend would not run the op with `args`, the preferred first; empty where it
        could."""
        table = {}
        for name in ORDER:
            if (backend := self.backends.get(name)) is not None:
                ok, reason = backend.can_run(*args)
                table[name] = reason if not ok else "on request only" * backend.on_request
        return table

    def fill(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """`args` with the defaults, which torch's dispatcher leaves out."""
        return args + self._defaults[len(args) :]

    def _run(self, *args: Any) -> Tensor:
        args = self.fill(args)
        self._check(*args)
        chosen = self.choose(args)
        if (watch := _WATCH.get()) is not None:
            watch(self, args, chosen)
        return chosen.run(*args)

    def _run_fake(self, *args: Any) -> Tensor:
        args = self.fill(args)
        self._check(*args)
        return self._fake(*args)

    def _backward(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The reference's vector-Jacobian product, by recomputation; differentiable again."""
        args = list(ctx.values)
        needed = tree_leaves(ctx.needs_input_grad)
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            for place, tensor in zip(ctx.tensor_places, ctx.saved_tensors, strict=True):
                # A view each: a tensor passed twice gets a gradient for each place.
                args[place] = tensor.view_as(tensor)
            wanted = [place for place in ctx.tensor_places if needed[place]]
            gradients = torch.autograd.grad(
                self.reference(*tree_unflatten(args, ctx.structure)),
                [args[place] for place in wanted],
                grad,
                create_graph=create_graph,
                allow_unused=True,
            )
        result: list[Tensor | None] = [None] * len(args)
        for place, gradient in zip(wanted, gradients, strict=True):
            result[place] = gradient
        # as many as arguments were given: the dispatcher leaves defaults out
        return tuple(tree_unflatten(result, ctx.structure)[: len(ctx.needs_input_grad)])


Watch = Callable[[Op, tuple[Any, ...], Backend], object]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Arguments are flattened, because some are lists of tensors."""
    values, ctx.structure = tree_flatten(inputs)
    ctx.tensor_places = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    ctx.save_for_backward(*(values[i] for i in ctx.tensor_places))
    ctx.values = [None if isinstance(value, Tensor) else value for value in values]


def _known(name: str) -> str:
    if name != "auto" and name not in ORDER:
        raise ArgumentError("backend", repr(name), f"known are auto, {', '.join(ORDER)}")
    return name


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Forces one backend ("cuda", "triton", "cpu" or "reference") for every op called inside.

    Holds for the calling thread (a context variable). A forced backend that can't run a call raises
    `BackendUnavailable` with the reason; "auto" chooses freely again. The environment variable
    MARFAST_BACKEND does the same for a process.
    """
    token = _FORCED.set(_known(name))
    try:
        yield
    finally:
        _FORCED.reset(token)


@contextlib.contextmanager
def watched(watch: "Watch") -> Iterator[None]:
    """Calls watch(op, arguments, backend) before each run of an op inside the block."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextlib.contextmanager
def used() -> Iterator[dict[str, set[str]]]:
    """Records, for every op that runs inside the block, which backends ran it."""
    record: dict[str, set[str]] = {}
    with watched(lambda op, _, chosen: record.setdefault(op.name, set()).add(chosen.name)):
        yield record


def forced() -> str:
    """The name of the backend that is forced here, or "auto"."""
    return _FORCED.get()


def which(op: str, *args: Any) -> str:
    """The name of the backend that would run this call."""
    if op not in OPS:
        raise ValueError(f"op: {op!r}; known are {', '.join(OPS)}")
    chosen = OPS[op]
    return chosen.choose(chosen.fill(args)).name


def backends(device: str | torch.device = "cpu") -> list[Availability]:
    """Every op x every backend of this version: can it run the op's float32 example here?"""
    where = torch.device(device)
    table = []
    for op in OPS.values():
        args = op.example(torch.float32, where, torch.Generator().manual_seed(0))
        for name in ORDER:
            if name in op.backends:
                ok, reason = op.backends[name].can_run(*op.fill(args))
                table.append(Availability(op.name, name, ok, reason))
    return table
