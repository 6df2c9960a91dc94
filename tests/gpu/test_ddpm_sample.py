"""On a GPU: `ddpm_sample`'s CUDA kernels at MAR's sizes, in both regimes, and in a graph."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.bench.predict import HEADS
from marfast.ops import choice
from marfast.ops.ddpm_sample import cuda as sampler
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from tests.helpers import assert_as_accurate
from tests.ops.heads import sample_inputs

pytestmark = pytest.mark.gpu
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def on(device: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [part.to(device) for part in value]
        return value.to(device) if isinstance(value, Tensor) else value

    return tuple(moved(value) for value in args)


def inputs(head: str, tokens: int, dtype: torch.dtype, steps: int = 5) -> tuple[Any, ...]:
    shape = HEADS[head]
    sizes = {"condition": shape.condition, "width": shape.width, "depth": shape.depth}
    return sample_inputs(tokens, **sizes, steps=steps, dtype=dtype)


def sampled(*args: Any) -> Tensor:
    with choice.backend("cuda"):
        return ops.ddpm_sample(*args)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("tokens", [1, 4, 16, 64, 512])
def test_as_accurate_as_pytorch(head: str, tokens: int, dtype: torch.dtype) -> None:
    args = on("cuda", inputs(head, tokens, dtype))
    assert_as_accurate(sampled, OPS["ddpm_sample"].plain, [args])


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_float32_has_the_bits_of_the_portable_build(tokens: int) -> None:
    args = inputs("MAR-B", tokens, torch.float32, steps=2)
    with cpu.cpu_isa("portable"), choice.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    difference = (sampled(*on("cuda", args)).cpu() - expected).abs().max()
    # e(t) is the device's own cosine, one unit in the last place off at most.
    assert difference <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("tall", [False, True], ids=["persistent", "tall"])
def test_a_graph_replays_it_on_other_numbers(tall: bool, monkeypatch: Any) -> None:
    if tall:
        monkeypatch.setattr(sampler, "regime", lambda *_: (None, "asked for"))
    args = on("cuda", inputs("MAR-B", 3, torch.bfloat16))
    with choice.backend("cuda"):
        ops.ddpm_sample(*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = ops.ddpm_sample(*args)
        args[0].normal_()
        graph.replay()
        assert torch.equal(out, ops.ddpm_sample(*args))
