"""The emulator's module in the place of the GPU's; its library, for what a test sets there."""

import ctypes
from collections.abc import Iterator

import pytest

from marfast.ops.ddpm_sample import plan
from marfast.ops.runtime import cuda

from . import build

DEVICE = (True, 4, 64 << 10)
"""Whether there is one, its multiprocessors, and the shared memory of a block."""

SCHEDULES = ("forward", "reverse", "random")


@pytest.fixture(params=SCHEDULES)
def emulated(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ctypes.CDLL]:
    module = build.module()
    emulation = ctypes.CDLL(module.__file__)
    set_schedule = emulation.marfast_emulation_schedule
    set_schedule.argtypes = (ctypes.c_int, ctypes.c_uint64)
    monkeypatch.setattr(cuda, "_load", lambda: (module, ""))
    monkeypatch.setattr(cuda, "reaches", lambda name, device: (True, ""))
    set_schedule(SCHEDULES.index(request.param), 1)
    emulation.marfast_emulation_device(*DEVICE)
    plan.profile_of.cache_clear()
    yield emulation
    set_schedule(0, 1)
    emulation.marfast_emulation_device(*DEVICE)
    plan.profile_of.cache_clear()
