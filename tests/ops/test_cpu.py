"""Which kernels "auto" takes, and how many threads they get."""

import pytest
import torch

from marfast import ops
from marfast.ops.runtime import cpu


@pytest.mark.usefixtures("needs_native")
def test_portable_kernels_run_only_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extension = cpu.extension()
    monkeypatch.setattr(cpu, "_asked_for_an_isa", False)
    best = extension.isa()
    x = torch.ones(2, 3)
    try:
        extension.set_isa("portable")  # as on a CPU that has nothing better
        ok, reason = cpu.is_built()
        assert not ok
        assert "MARFAST_CPU_ISA=portable" in reason
        assert ops.which("layer_norm_modulate", x, x, x) == "torch"
        with cpu.cpu_isa("portable"):
            assert ops.which("layer_norm_modulate", x, x, x) == "cpu"
    finally:
        extension.set_isa(best)
    assert cpu.is_built() == (True, "")


def test_kernels_get_torchs_threads() -> None:
    assert cpu.threads() == torch.get_num_threads()
