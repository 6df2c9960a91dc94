"""What every backend of a folder gets, whatever is in its file."""

import sys
from collections import namedtuple
from types import ModuleType
from typing import Any

import pytest
import torch

from marfast.ops.backend import Backend

GPU = torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["triton", "cuda", "torch"])
def test_it_runs_on_the_device_of_its_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current one."""
    current: list[torch.device] = []
    seen: list[tuple[Any, ...]] = []

    class Here:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(self.device)

        def __exit__(self, *_: object) -> None:
            current.pop()

    class OnGpu:
        device = GPU

    def run(a: Any, *variant: str) -> str:
        seen.append((a, current[-1], *variant))
        return "result"

    file: Any = ModuleType("file")
    file.run, file.variants = run, lambda a: ["slow", "quick"]
    monkeypatch.setattr(torch.cuda, "device", Here)
    for module in (name, "pytorch"):
        monkeypatch.setitem(sys.modules, f"marfast.ops.an_op.{module}", file)
    backend = Backend.in_folder("marfast.ops.an_op", name)
    a = namedtuple("an_op", "x")(OnGpu())
    assert backend.run(a) == "result"
    assert backend.variants(a) == ["slow", "quick"]
    quick = backend.as_variant("quick")
    assert (quick.label, quick.name) == (f"{name}:quick", name)
    quick.run(a)
    assert seen == [(a, GPU), (a, GPU, "quick")]
    assert not current
