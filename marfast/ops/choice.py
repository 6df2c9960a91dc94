"""Which backend runs a call: the first able one in ORDER, or the one that is forced.

An op that lacks the forced backend runs by `torch`: forcing "cuda" forces it where there is one.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from marfast.errors import ArgumentError, BackendUnavailable
from marfast.ops import self_check
from marfast.ops.backend import AnyOp, Backend
from marfast.ops.runtime import cpu

ORDER = ("cuda", "triton", "cpu", "torch", "reference")
"""Every backend's name, the preferred first."""


Watch = Callable[[AnyOp, Any, Backend], object]
"""Is told of a run: the op, its bound arguments, the chosen backend."""

_FORCED: ContextVar[str] = ContextVar(
    "marfast_backend", default=os.environ.get("MARFAST_BACKEND") or "auto"
)
_WATCH: ContextVar[Watch | None] = ContextVar("marfast_watch", default=None)


def choose(op: AnyOp, a: Any) -> Backend:
    """The first backend, in ORDER, that can run the op with its bound arguments."""
    forced = _known(_FORCED.get())
    auto = forced == "auto"
    for name in ORDER if auto else (forced if forced in op.backends else "torch",):
        backend = op.backends.get(name)
        if backend is None or (auto and backend.on_request):
            continue
        ok, reason = backend.can_run(a)
        if ok and (reason := self_check.verdict(op, backend, a)):
            ok = False
        if ok:
            if name == "torch" and auto and "cpu" in op.backends and a[0].device.type == "cpu":
                cpu.warn_if_missing()
            if (watch := _WATCH.get()) is not None:
                watch(op, a, backend)
            return backend
    raise BackendUnavailable(f"backend {forced!r} can't run {op.name}: {reason}")


def verdicts(op: AnyOp, a: Any) -> dict[str, str]:
    """Why each backend would not run the op with its bound arguments, the preferred first; empty
    where it could."""
    table = {}
    for name in ORDER:
        if (backend := op.backends.get(name)) is not None:
            ok, reason = backend.can_run(a)
            table[name] = reason if not ok else "on request only" * backend.on_request
    return table


def _known(name: str) -> str:
    if name != "auto" and name not in ORDER:
        raise ArgumentError("backend", repr(name), f"known are auto, {', '.join(ORDER)}")
    return name


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
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
    """Records, for every op that runs inside the block, which backends ran it."""
    record: dict[str, set[str]] = {}
    with watched(lambda op, _, chosen: record.setdefault(op.name, set()).add(chosen.name)):
        yield record
