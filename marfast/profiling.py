"""Named ranges of a generation: for Nsight Systems, for torch's profiler and for timers.

Ranges are in NVTX's domain `marfast`, nested as the work is: `iteration k` (payload: the tokens it
predicts), in it `encoder`, `decoder` (rows) and `head` (rows), in that `steps a-b` (rows), on a GPU
in those `adaln_mlp` (rows); `vae` (images). They are always in; with no tool attached one costs
well under a microsecond.
"""

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

DOMAIN = "marfast"

_NOTHING = nullcontext()
_RANGE = re.compile(rf"{DOMAIN}::(iteration|steps|encoder|decoder|head|vae)\b.*")
_TIMES: ContextVar[dict[str, float] | None] = ContextVar("marfast_times", default=None)


def _nvtx_domain() -> Any:
    """NVTX's, if a tool has attached itself and the package nvtx is installed, else None."""
    if not any(name.startswith("NVTX_INJECTION") for name in os.environ):
        return None
    try:
        import nvtx
    except ImportError:
        return None
    return nvtx.get_domain(DOMAIN)


_nvtx: Any = _nvtx_domain()


def watching() -> bool:
    """Whether anybody sees ranges now."""
    profiled: bool = torch.autograd.profiler._is_profiler_enabled
    return _nvtx is not None or profiled or _TIMES.get() is not None


def range(name: str, payload: int = 0) -> AbstractContextManager[Any]:
    """A context that is one range. `payload` is a size: of rows, tokens or images.

    Inside torch's profiler its event is `marfast::name`, with the payload as its argument.
    """
    profiled: bool = torch.autograd.profiler._is_profiler_enabled
    times = _TIMES.get()
    if _nvtx is None and not profiled and times is None:
        return _NOTHING
    return _range(name, payload, profiled, times)


@contextlib.contextmanager
def _range(
    name: str, payload: int, profiled: bool, times: dict[str, float] | None
) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if profiled:
            event = torch.profiler.record_function(f"{DOMAIN}::{name}", f"size={payload}")
            stack.enter_context(event)
        if _nvtx is not None:
            _nvtx.push_range(_nvtx.get_event_attributes(message=name, payload=payload))
            stack.callback(_nvtx.pop_range)
        if times is not None:
            stack.callback(_add, times, name, time.perf_counter())
        yield


def _add(times: dict[str, float], name: str, start: float) -> None:
    times[name] = times.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Collects the seconds of each name's ranges inside the block, as the host sees them."""
    times: dict[str, float] = {}
    token = _TIMES.set(times)
    try:
        yield times
    finally:
        _TIMES.reset(token)


class Spent(NamedTuple):
    """What a range or an operator took, all its calls together; seconds."""

    name: str
    """A range's without its number: `iteration`, `steps`."""
    is_range: bool
    calls: int
    total: float
    own: float
    """Without the operators and ranges inside it."""
    device: float
    """Of the GPU's, on one."""


def trace(function: Callable[[], object], file: str) -> list[Spent]:
    """Run `function` under torch's profiler and write a trace that Perfetto opens
    (ui.perfetto.dev): operators, and the ranges above them as `marfast::…`. What took how long is
    returned, the most first. OSError if it can't be written."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiled:
        function()
    profiled.export_chrome_trace(file)
    if not os.path.exists(file):  # torch tells nobody but the terminal
        raise OSError(errno.EIO, "torch's profiler could not write it: is the disk full?")
    return _spent(profiled.key_averages())


def _spent(events: Any) -> list[Spent]:
    found: dict[str, Spent] = {}
    for event in events:
        of_range = _RANGE.fullmatch(event.key)
        name = of_range[1] if of_range else event.key
        before = found.get(name, Spent(name, bool(of_range), 0, 0.0, 0.0, 0.0))
        found[name] = Spent(
            name,
            before.is_range,
            before.calls + event.count,
            before.total + 1e-6 * event.cpu_time_total,
            before.own + 1e-6 * event.self_cpu_time_total,
            before.device + 1e-6 * getattr(event, "self_device_time_total", 0.0),
        )
    return sorted(found.values(), key=lambda spent: spent.own + spent.device, reverse=True)
