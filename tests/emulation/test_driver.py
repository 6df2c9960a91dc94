"""csrc/cuda/kernels.cu over a driver that refuses: what goes wrong is an error, never a crash."""

import ctypes
from typing import Any

import pytest
import torch

from marfast import ops
from marfast.ops.ddpm_sample import cuda as sampler
from marfast.ops.ddpm_sample import plan
from marfast.ops.head import HeadShape
from marfast.ops.runtime import cuda
from tests.ops.heads import sample_inputs

from . import build
from .module import on_cuda

pytestmark = [
    pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build()),
    pytest.mark.parametrize("emulated", ["forward"], indirect=True),
]


def sample() -> torch.Tensor:
    return on_cuda(ops.ddpm_sample, *sample_inputs(3, width=64, dtype=torch.bfloat16))


def test_without_a_device(emulated: Any) -> None:
    emulated.marfast_emulation_device(False, 4, 64 << 10)
    with pytest.raises(RuntimeError, match=r"^device_sizes: no CUDA-capable device is detected$"):
        sample()


def test_a_device_without_multiprocessors(emulated: Any) -> None:
    emulated.marfast_emulation_device(True, 0, 64 << 10)
    with pytest.raises(ValueError, match=r"^head_plan: gpu has no multiprocessors$"):
        sample()


def test_more_blocks_than_a_device_holds(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cooperative launches say so; a launch that isn't one would wait for ever."""
    args = sample_inputs(1, width=64, dtype=torch.bfloat16)
    shape, device = HeadShape.of(args[3]), plan.profile_of(torch.device("cpu"))
    chosen = plan.head_plan(2, shape, device, torch.bfloat16, 4, persistent=True)
    assert chosen.row_groups * chosen.column_groups == 4
    monkeypatch.setattr(sampler, "regime", lambda *_: (chosen, ""))
    emulated.marfast_emulation_device(True, 3, 64 << 10)
    with pytest.raises(RuntimeError, match=r"^ddpm_sample: the launch failed: too many blocks in"):
        on_cuda(ops.ddpm_sample, *args)


def test_more_shared_memory_than_a_block_can_have(emulated: Any) -> None:
    shape, device = HeadShape(16, 24, 288, 1, 256, 288), plan.profile_of(torch.device("cpu"))
    chosen = plan.head_plan(2, shape, device, torch.bfloat16, 4, persistent=True)
    assert chosen.shared_bytes > 48 << 10
    emulated.marfast_emulation_device(True, 4, 48 << 10)
    with pytest.raises(RuntimeError, match=r"^resident_blocks: invalid argument$"):
        cuda.module().resident_blocks(shape=shape, dtype=torch.bfloat16, plan=chosen)


def test_launches_go_to_the_stream_that_is_asked_for(emulated: Any) -> None:
    emulated.marfast_emulation_latest_stream.restype = ctypes.c_void_p
    out, time, condition = torch.empty(2, 8), torch.zeros(1, 8), torch.zeros(2, 8)
    cuda.module().silu_sum(stream=4711, out=out, time=time, condition=condition)
    assert emulated.marfast_emulation_latest_stream() == 4711
