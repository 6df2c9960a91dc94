"""A GPU kernel proves itself before it is trusted: one known answer at its first use.

The first time that a backend runs a class of calls (`shape_class`) on a CUDA device, it runs the
call itself, with few steps, and the reference does. If the results differ by more than the dtype
allows, or if it raises, it is named in a warning, once, and not trusted again in this process.
Nothing is checked while a graph is captured. MARFAST_SELF_CHECK=0 turns it off.
"""

import os
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from marfast.ops.backend import AnyOp, Args, Backend, Example
from marfast.ops.runtime.capture import LOCK
from marfast.ops.shape_class import precision, shape_class

ALLOWED = {"float64": 1e-3, "float32": 1e-3, "tf32": 2e-2, "bfloat16": 5e-2, "float16": 2e-2}
"""Of the reference's largest value, by precision. Under tf32 the reference itself is rounded."""

BACKENDS = ("cuda", "triton")


class Answer(NamedTuple):
    """How right a backend was."""

    error: float | None
    """The largest difference from the reference, of the reference's largest value; None where it
    has no result."""
    wrong: str
    """Why it is not to be trusted; empty if it is."""


class DeviceLost(RuntimeError):
    """A kernel has made the device unusable for this process."""


Key = tuple[str, str, str, torch.device]
_answers: dict[Key, Answer] = {}


def verdict(op: AnyOp, backend: Backend, a: Args) -> str:
    """Why this backend is not to be trusted with such a call; empty if it may run."""
    if backend.name not in BACKENDS or not is_wanted(a[0].device):
        return ""
    if is_capturing():
        known = _answers.get(_key(op, backend, a))
        return "" if known is None else known.wrong
    return answer(op, backend, a).wrong


def is_wanted(device: torch.device) -> bool:
    """Whether kernels are checked on this device."""
    return device.type == "cuda" and os.environ.get("MARFAST_SELF_CHECK") != "0"


def is_capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def answer(op: AnyOp, backend: Backend, a: Args) -> Answer:
    """What was found out about such a call, now or before. DeviceLost names the backend."""
    key = _key(op, backend, a)
    with LOCK:
        if key not in _answers:
            _answers[key] = found = known_answer(op, backend, op.shortened(a))
            if found.wrong:
                warnings.warn(f"{found.wrong}; it is not used", RuntimeWarning, stacklevel=4)
    return _answers[key]


def _key(op: AnyOp, backend: Backend, a: Args) -> Key:
    return op.name, backend.label, shape_class(a), a[0].device


@torch.no_grad()
def known_answer(op: AnyOp, backend: Backend, a: Args) -> Answer:
    """One call by the backend and by the reference."""
    products, device = precision(a), a[0].device
    what = f"backend {backend.label!r} of {op.name} in {products} on {device}"
    with torch.autocast(device.type, enabled=False):
        expected = op.plain(*a)
        try:
            off, largest = _distance(backend.run(a), expected)
        except Exception as error:
            if lacks_memory(error):
                raise
            check_device(device, what, error)
            return Answer(None, f"{what} failed at its first use: {error}")
    relative = off / largest if largest else off
    if relative <= ALLOWED[products]:  # NaN is not
        return Answer(relative, "")
    return Answer(relative, f"{what} is off by {off:.3g} where the largest value is {largest:.3g}")


def lacks_memory(error: Exception) -> bool:
    """Which is no fault of a kernel. Libraries and captures say so in their own words."""
    told = str(error).lower()
    words = ("out of memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError) or any(word in told for word in words)


def check_device(device: torch.device, what: str, cause: Exception) -> None:
    """Raises DeviceLost if what has just failed took the device with it."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except Exception:
        raise DeviceLost(
            f"{what} failed ({cause}), and {device} is lost with it; start anew with another "
            "backend: MARFAST_BACKEND=torch"
        ) from cause


def check(
    op: AnyOp,
    backend: Backend,
    dtype: torch.dtype,
    device: torch.device,
    example: Example | None = None,
) -> str:
    """Runs the op's example, or another, by a backend and by the reference; what is wrong, or
    nothing, also where the backend takes no such call."""
    a = op.example_args(dtype, device, example=example)
    return known_answer(op, backend, a).wrong if backend.can_run(a)[0] else ""


def _distance(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    """Where the reference is no number (sums past float16's range) a kernel may be one."""
    if expected.numel() == 0:
        return 0.0, 0.0
    known = expected.isfinite()
    difference = torch.where(known, actual.double() - expected.double(), 0.0).abs()
    largest = torch.where(known, expected.double(), 0.0).abs()
    return float(difference.amax()), float(largest.amax())
