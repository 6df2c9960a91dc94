"""The ops' "cuda" backends on CPU tensors, their kernels run by the emulator."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops import choice
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu, cuda
from tests.helpers import assert_as_accurate
from tests.ops.heads import denoise_inputs, step_inputs
from tests.ops.test_attention import inputs, written_out

from . import build
from .module import on_cuda

pytestmark = pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def in_float64(args: tuple[Any, ...]) -> tuple[Any, ...]:
    def wide(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [wide(part) for part in value]
        floats = isinstance(value, Tensor) and value.is_floating_point()
        return value.double() if floats else value

    return tuple(wide(value) for value in args)


def assert_right(op: Any, args: tuple[Any, ...], dtype: torch.dtype) -> None:
    """float32: the portable CPU kernels' bits. Others: near float64, as the dtype allows."""
    actual = on_cuda(op, *args)
    with choice.backend("reference"):
        exact = op(*in_float64(args))
    if dtype == torch.float32 and cpu.is_built()[0]:
        with cpu.cpu_isa("portable"), choice.backend("cpu"):
            assert torch.equal(actual, op(*args))
    bound = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    assert actual.shape == exact.shape
    assert torch.isfinite(actual).all()
    if exact.numel():
        error = (actual.double() - exact).abs().max().item()
        assert error <= bound * max(1.0, exact.abs().max().item()), error


def normal(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sizes, generator=generator).to(dtype)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(0, 16), (1, 1), (2, 33), (3, 64), (17, 65)])
def test_layer_norm_modulate(rows: int, width: int, dtype: torch.dtype) -> None:
    x, shift, scale = (
        normal(rows, width + gap, dtype=dtype, seed=gap)[:, :width] for gap in (2, 3, 4)
    )
    weight, bias = normal(2, width, dtype=dtype, seed=1)
    for eps in (1e-6, 0.5):
        assert_right(ops.layer_norm_modulate, (x, shift, scale, weight, bias, eps), dtype)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 17])
def test_ddpm_step(tokens: int, guided: bool, dtype: torch.dtype) -> None:
    x, noise = normal(2, tokens, 3)
    model_output = normal(tokens * (1 + guided), 6, seed=1).tanh().to(dtype)
    coefficients = torch.tensor([1.1, 0.4, 0.3, 0.6, -2.0, -3.0, 1.0, 0.2])
    args = (x, model_output, noise, coefficients, torch.tensor([2.5]), 0.9)
    assert_right(ops.ddpm_step, args, torch.float32)
    assert_right(ops.ddpm_step, step_inputs(tokens, 3, dtype), torch.float32)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(0, 16), (1, 16), (2, 33), (3, 64), (17, 40)])
def test_adaln_mlp(rows: int, width: int, dtype: torch.dtype) -> None:
    x, shift, scale, gate = (normal(rows, width + gap, seed=gap)[:, :width] for gap in (2, 3, 4, 5))
    weight, bias = normal(2, width, seed=1)
    b1, b2 = normal(2, width, dtype=dtype, seed=3)
    w1, w2 = (normal(2, width, width, seed=2) / width**0.5).to(dtype)
    given = (x, shift, scale, gate, weight, bias, w1, b1, w2, b2)
    for eps in (1e-6, 0.5):
        assert_right(ops.adaln_mlp, (*given, eps), dtype)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "depth"), [(0, 1), (1, 0), (2, 3)])
def test_denoise(rows: int, depth: int, dtype: torch.dtype) -> None:
    sizes = {"channels": 3, "condition": 20, "width": 33, "depth": depth}
    assert_right(ops.denoise, denoise_inputs(rows, **sizes, dtype=dtype), dtype)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
def test_float16_stays_finite_past_its_range() -> None:
    """As by Triton (docs/triton.md): an infinity would be NaN after the next LayerNorm."""
    half, most = torch.float16, 65504
    rows, width = 3, 32
    x, gate = normal(2, rows, width)
    zero, one = torch.zeros(rows, width), torch.ones(width)
    far = torch.full((rows, width), -1e6)  # LN + modulate gives -65504, not -infinity
    w1 = torch.full((width, width), -1 / width, dtype=half)
    b1 = torch.full((width,), 4e4, dtype=half)  # SiLU(65504 + 40000)
    w2 = torch.full((width, width), 2.0**-14, dtype=half)
    actual = on_cuda(ops.adaln_mlp, x, far, zero, gate, one, 0 * one, w1, b1, w2, 0 * b1)
    torch.testing.assert_close(actual, x + gate * (width * most * 2.0**-14))

    args = denoise_inputs(3, width=32, dtype=half)
    assert torch.isfinite(on_cuda(ops.denoise, 1e6 * args[0], *args[1:])).all()


ATTENTION: list[dict[str, Any]] = [
    {"batch": 3, "length": 1, "head_dim": 64},
    {"batch": 1, "length": 5, "heads": 3, "head_dim": 8},
    {"batch": 2, "length": 17, "head_dim": 24, "wanted": 4},
    {"batch": 1, "length": 64, "head_dim": 80},
    {"batch": 1, "length": 77, "head_dim": 64, "causal": True},
    {"batch": 2, "length": 130, "heads": 1, "head_dim": 80, "wanted": 5, "causal": True},
    {"batch": 1, "length": 130, "heads": 1, "head_dim": 64},
    {"batch": 1, "length": 33, "heads": 1, "head_dim": 128, "wanted": 70},
]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype: torch.dtype) -> None:
    """Another seed for each shape; errors count together, beside PyTorch's own."""
    cases = [
        inputs(**{"heads": 2, **shape}, dtype=dtype, seed=seed)
        for seed, shape in enumerate(ATTENTION)
    ]
    plain = OPS["attention"].plain
    assert_as_accurate(lambda *args: on_cuda(ops.attention, *args), plain, cases)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
def test_attention_stays_as_accurate_over_many_keys() -> None:
    """An m that rounds differently from tile to tile would make the earlier keys' weights drift."""
    cases = [
        (2 * qkv, queries, causal)
        for qkv, queries, causal in (
            inputs(batch=1, length=1000, heads=1, wanted=8, seed=seed) for seed in range(8)
        )
    ]
    plain = OPS["attention"].plain
    assert_as_accurate(lambda *args: on_cuda(ops.attention, *args), plain, cases)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_takes_any_layout(dtype: torch.dtype) -> None:
    qkv, queries, _ = inputs(length=20, head_dim=16, wanted=3, dtype=dtype)
    exact = written_out(qkv.double(), queries, False)
    layouts = {
        "misaligned": torch.empty(qkv.numel() + 1, dtype=dtype)[1:].view(qkv.shape).copy_(qkv),
        "heads first": qkv.permute(0, 3, 2, 1, 4).contiguous().permute(0, 3, 2, 1, 4),
        "heads of a wider tensor": torch.cat([qkv, qkv], -1)[..., :16],
        "elements apart": torch.stack([qkv, qkv], -1)[..., 0],
    }
    for name, given in layouts.items():
        actual = on_cuda(ops.attention, given, queries)
        assert torch.equal(actual, on_cuda(ops.attention, qkv, queries)), name
    bound = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(actual.double(), exact, rtol=0, atol=bound)


@pytest.mark.usefixtures("emulated")
def test_attention_says_what_it_cannot_run() -> None:
    with choice.backend("cuda"):
        with pytest.raises(choice.BackendUnavailable, match="heads of 136; the kernel takes 128"):
            ops.attention(torch.zeros(1, 2, 3, 1, 136))
        with pytest.raises(choice.BackendUnavailable, match="float64; the kernel takes float32"):
            ops.attention(torch.zeros(1, 2, 3, 1, 8, dtype=torch.float64))


WRONG = [
    ({"weight": torch.zeros(4, 6)}, "weight has another shape"),
    ({"x": torch.zeros(2, 5).half()}, "x has another dtype"),
    ({"gate": torch.zeros(2, 4)}, "gate stands without a residual"),
    ({"scale": 1.0}, "scale is no argument of its own"),
]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_launch_takes_its_own_arguments_alone(change: dict[str, Any], words: str) -> None:
    given = {"out": torch.zeros(2, 4), "x": torch.zeros(2, 5), "weight": torch.zeros(4, 5)}
    rest = {"bias": torch.zeros(4), "gate": None, "residual": None, "activated": False}
    cuda.call("linear", torch.device("cpu"), **given, **rest)
    with pytest.raises(ValueError, match=f"linear: {words}"):
        cuda.call("linear", torch.device("cpu"), **(given | rest | change))
