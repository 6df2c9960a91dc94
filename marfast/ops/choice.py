"""Which backend runs a call: the forced one; else, where calls are measured (tuning.py), the
fastest; else the first able one in ORDER.

An op that lacks the forced backend runs by `torch`: forcing "cuda" forces it where there is one.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

from marfast.errors import ArgumentError, BackendUnavailable
from marfast.ops import self_check, tuning
from marfast.ops.backend import AnyOp, Backend
from marfast.ops.runtime import cpu
from marfast.ops.shape_class import shape_class
from marfast.ops.trials import Trial
from marfast.ops.tuning import Candidate

ORDER = ("cuda", "triton", "cpu", "torch", "reference")
"""Every backend's name, the preferred first."""
BackendName = Literal["auto", "cuda", "triton", "cpu", "torch", "reference"]


Watch = Callable[[AnyOp, Any, Backend], object]
"""Is told of a run: the op, its bound arguments, the chosen backend."""

_FORCED: ContextVar[str] = ContextVar(
    "marfast_backend", default=os.environ.get("MARFAST_BACKEND") or "auto"
)
_WATCH: ContextVar[Watch | None] = ContextVar("marfast_watch", default=None)


def choose(op: AnyOp, a: Any) -> Backend:
    """The one that runs the op with its bound arguments: of those that are preferred, the first
    able and trusted one."""
    forced = _known(_FORCED.get())
    auto = forced == "auto"
    reason = ""
    for backend in _preferred(op, a, forced):
        ok, reason = backend.can_run(a)
        if ok and not (reason := self_check.verdict(op, backend, a)):
            on_cpu = "cpu" in op.backends and a[0].device.type == "cpu"
            if backend.name == "torch" and auto and on_cpu:
                cpu.warn_if_missing()
            if (watch := _WATCH.get()) is not None:
                watch(op, a, backend)
            return backend
    raise BackendUnavailable(f"backend {forced!r} can't run {op.name}: {reason}")


def _preferred(op: AnyOp, a: Any, forced: str) -> Iterable[Backend]:
    if forced != "auto":
        return [op.backends[forced if forced in op.backends else "torch"]]
    usual = [b for name in ORDER if (b := op.backends.get(name)) and not b.on_request]
    if (tuner := tuning.tuner_of(a[0].device)) is None:
        return usual
    fastest = tuner.fastest_first(_call(op, a), lambda: _candidates(op, a))
    return [*filter(None, (_labelled(op, label) for label in fastest)), *usual]


def _call(op: AnyOp, a: Any) -> str:
    return f"{op.name} {shape_class(a)}"


def _labelled(op: AnyOp, label: str) -> Backend | None:
    name, _, variant = label.partition(":")
    return op.backends[name].as_variant(variant) if name in op.backends else None


def _candidates(op: AnyOp, a: Any) -> list[Candidate]:
    """Every backend that can run the call, in each of its variants, but for the reference, which is
    what they are compared with; what runs unmeasured first."""
    few = op.shortened(a)

    def candidate(backend: Backend) -> Candidate:
        return Candidate(
            backend.label,
            answer=lambda: self_check.answer(op, backend, a),
            begin=lambda: backend.run(few),
            run=lambda: backend.run(a),
        )

    named = [op.backends[name] for name in ORDER if name in op.backends and name != "reference"]
    able = sorted((b for b in named if b.can_run(a)[0]), key=lambda b: b.on_request)
    return [candidate(b.as_variant(name)) for b in able for name in b.variants(a)]


def tried(op: AnyOp, a: Any) -> dict[str, Trial]:
    """What came of measuring such a call, by backend and variant."""
    tuner = tuning.tuner_of(a[0].device)
    return {} if tuner is None else tuner.trials.get(_call(op, a), {})


def verdicts(op: AnyOp, a: Any) -> dict[str, str]:
    """Why each backend would not run the op with its bound arguments, the preferred first; empty
    where it could."""
    table, measured = {}, bool(tried(op, a))
    for name in ORDER:
        if (backend := op.backends.get(name)) is not None:
            ok, reason = backend.can_run(a)
            unasked = backend.on_request and not measured
            table[name] = reason if not ok else "on request only" * unasked
    return table


def _known(name: str) -> str:
    if name != "auto" and name not in ORDER:
        raise ArgumentError("backend", repr(name), f"known are auto, {', '.join(ORDER)}")
    return name


@contextlib.contextmanager
def backend(name: BackendName) -> Iterator[None]:
    """Forces one backend ("cuda", "triton", "cpu", "torch" or "reference") for every op called
    inside; an op that has no such backend runs by "torch".

    Holds for the calling thread (a context variable). A forced backend that can't run a call raises
    `BackendUnavailable` with the reason; "auto" chooses freely again. The environment variable
    MARFAST_BACKEND does the same for a process.
    """
    token = _FORCED.set(_known(name))
    try:
        yield
    finally:
        _FORCED.reset(token)


def forced() -> str:
    """The name of the backend that is forced here, or "auto"."""
    return _FORCED.get()


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Calls watch(op, bound arguments, backend) before each run of an op inside the block."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextlib.contextmanager
def used() -> Iterator[dict[str, set[str]]]:
    """Records, for every op that runs inside the block, which backends ran it; a block round this
    one hears of them, too."""
    record: dict[str, set[str]] = {}
    outer = _WATCH.get()

    def watch(op: AnyOp, a: Any, chosen: Backend) -> None:
        record.setdefault(op.name, set()).add(chosen.name)
        if outer is not None:
            outer(op, a, chosen)

    with watched(watch):
        yield record
