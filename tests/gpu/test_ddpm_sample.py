"""On a GPU: `ddpm_sample`'s CUDA kernels at MAR's sizes, in both regimes, and in a graph."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops import choice
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from tests.gpu.regimes import REGIMES, in_regime
from tests.helpers import assert_as_accurate
from tests.ops.heads import HEADS, sample_inputs

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


def sampled(regime: str, *args: Any) -> Tensor:
    def run() -> Tensor:
        with choice.backend("cuda"):
            return ops.ddpm_sample(*args)

    return in_regime(regime, run)()


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("tokens", [1, 4, 40])
def test_as_accurate_as_pytorch(head: str, tokens: int, dtype: torch.dtype, regime: str) -> None:
    args = on("cuda", inputs(head, tokens, dtype))
    assert_as_accurate(partial(sampled, regime), OPS["ddpm_sample"].plain, [args])


@pytest.mark.parametrize("dtype", DTYPES)
def test_as_accurate_as_pytorch_in_large_batches(dtype: torch.dtype) -> None:
    args = on("cuda", inputs("MAR-B", 512, dtype))
    assert_as_accurate(partial(sampled, "tall"), OPS["ddpm_sample"].plain, [args])


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_float32_has_the_bits_of_the_portable_build(tokens: int, regime: str) -> None:
    args = inputs("MAR-B", tokens, torch.float32, steps=2)
    with cpu.cpu_isa("portable"), choice.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    difference = (sampled(regime, *on("cuda", args)).cpu() - expected).abs().max()
    # e(t) is the device's own cosine, one unit in the last place off at most.
    assert difference <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("regime", REGIMES)
def test_a_graph_replays_it_on_other_numbers(regime: str) -> None:
    args = on("cuda", inputs("MAR-B", 3, torch.bfloat16))
    sampled(regime, *args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sampled(regime, *args)
    args[0].normal_()
    graph.replay()
    assert torch.equal(out, sampled(regime, *args))
