"""The emulator's module in the place of the GPU's."""

import ctypes
from collections.abc import Iterator

import pytest

from marfast.ops.runtime import cuda

from . import build

SCHEDULES = ("forward", "reverse", "random")


@pytest.fixture(params=SCHEDULES)
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = build.module()
    set_schedule = ctypes.CDLL(module.__file__).marfast_emulation_schedule
    set_schedule.argtypes = (ctypes.c_int, ctypes.c_uint64)
    monkeypatch.setattr(cuda, "_load", lambda: (module, ""))
    monkeypatch.setattr(cuda, "reaches", lambda name, device: (True, ""))
    set_schedule(SCHEDULES.index(request.param), 1)
    yield
    set_schedule(0, 1)
