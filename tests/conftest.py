"""Fixtures for every test: uninitialised memory is NaN, GPU tests are skipped without a GPU."""

import math
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast.ops.runtime import cpu

GUARD = 64  # elements before and after a guarded buffer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


# A shell's background job ignores Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Small models gain nothing from more, and lose much on a busy machine.
torch.set_num_threads(1)

# torch notes, once, which functions a device context redirects: before any of them is patched.
with torch.device("meta"):
    torch.empty(0)


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(original: Any) -> Any:
        def empty(*args: Any, **kwargs: Any) -> Tensor:
            result: Tensor = original(*args, **kwargs)
            if result.is_floating_point():
                with torch.no_grad():
                    result.fill_(math.nan)
            return result

        return empty

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, filled(getattr(owner, name)))


@pytest.fixture
def guarded_outputs(
    uninitialised_memory_is_nan: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Tensor]]:
    """Outputs (`new_empty`) lie between guard elements, which must be untouched at the end."""
    buffers: list[Tensor] = []
    new_empty = torch.Tensor.new_empty

    def guarded(self: Tensor, size: Any, **kwargs: Any) -> Tensor:
        if isinstance(size, int):  # of no kernel: Triton's interpreter makes empty tensors so
            return new_empty(self, size, **kwargs)
        count = math.prod(size)
        buffer = new_empty(self, (count + 2 * GUARD,), **kwargs)
        buffers.append(buffer)
        return buffer[GUARD : GUARD + count].view(size)

    monkeypatch.setattr(torch.Tensor, "new_empty", guarded)
    yield buffers
    assert buffers, "no output was guarded"
    for buffer in buffers:
        assert buffer[:GUARD].isnan().all(), "written before the output"
        assert buffer[-GUARD:].isnan().all(), "written after the output"


@pytest.fixture
def needs_native() -> None:
    ok, reason = cpu.is_built()
    if not ok:
        pytest.skip(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`isa`: every instruction set that this CPU has; none where the extension is missing."""
    if "isa" in metafunc.fixturenames:
        ok, _ = cpu.is_built()
        names = cpu.extension().isas() if ok else []
        metafunc.parametrize("isa", names)
