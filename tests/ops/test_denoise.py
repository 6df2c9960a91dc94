"""`denoise`: the same bits everywhere, accuracy, hostile shapes."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.denoise.cpu import GROUP
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu, cuda
from marfast.reference import SimpleMLPAdaLN
from marfast.reference import denoise as head
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa, with_defined_bits
from tests.ops.heads import OnOneDevice
from tests.ops.heads import denoise_inputs as inputs

pytestmark = pytest.mark.usefixtures("needs_native")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def reference(x: Tensor, t: Tensor, cond: Tensor, weights: list[Tensor], *_: Any) -> Tensor:
    return head.denoise(x, t, cond, weights).to(x.dtype)


def test_the_reference_backend_is_the_modules_forward():
    x, t, cond, weights = inputs()
    net = SimpleMLPAdaLN(16, 40, 32, 24, 2)
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    with ops.backend("reference"), torch.no_grad():
        assert_bitwise_equal(ops.denoise(x, t, cond, weights), net(x, t, cond))


@pytest.mark.parametrize(
    "sizes",
    [
        {"rows": 0},
        {"rows": 1, "width": 1, "channels": 1, "condition": 1, "depth": 1},
        {"rows": 2, "depth": 0, "channels": 3},
        {"rows": 3, "width": 257, "frequencies": 7},
        {"rows": 17, "width": 95, "condition": 33},
        {"rows": GROUP + 1, "width": 33, "channels": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("guarded_outputs")
def test_every_instruction_set_and_thread_count_gives_the_same_bits(sizes, dtype):
    args = inputs(**sizes, dtype=dtype)
    results = on_every_isa(ops.denoise, *args)
    bound = 1e-4 if dtype == torch.float32 else 0.1
    for actual in results.values():
        torch.testing.assert_close(actual, reference(*args), rtol=bound, atol=bound)
    for isa, actual in with_defined_bits(results, dtype).items():
        assert_bitwise_equal(actual, results["portable"], isa)
    expected = ops.denoise(*args)
    try:
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            assert_bitwise_equal(ops.denoise(*args), expected, f"{threads} threads")
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_against_float64(dtype, isa):
    cases = [inputs(9, width=150, dtype=dtype, seed=seed) for seed in range(8)]
    with cpu.cpu_isa(isa):
        assert_as_accurate(ops.denoise, reference, cases)


def test_any_split_of_the_rows_gives_the_same_bits():
    x, t, cond, weights = inputs(40)
    whole = ops.denoise(x, t, cond, weights)
    for part in (slice(0, 1), slice(1, 15), slice(15, 40)):
        assert_bitwise_equal(ops.denoise(x[part], t[part], cond[part], weights), whole[part])


def test_timesteps_may_be_floats_and_layouts_change_nothing():
    x, t, cond, weights = inputs()
    expected = ops.denoise(x, t, cond, weights)

    def strided(value: Tensor) -> Tensor:
        return torch.stack([value, value], -1)[..., 0]

    packed = ops.pack_head(weights)
    actual = ops.denoise(strided(x), t.float(), strided(cond), [*map(strided, weights)], packed)
    assert_bitwise_equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_half_precision(dtype):
    x, t, cond, weights = inputs(dtype=dtype)
    x, cond = x.to(dtype), cond.to(dtype)
    actual = ops.denoise(x, t, cond, weights)
    assert_bitwise_equal(actual, ops.denoise(x.float(), t, cond.float(), weights).to(dtype))


def test_gradients():
    x, t, cond, weights = inputs(3, width=4, depth=1, channels=2, condition=3, frequencies=6)
    floats = [tensor.double().requires_grad_() for tensor in (x, cond, *weights)]
    assert torch.autograd.gradcheck(
        lambda x, cond, *weights: ops.denoise(x, t, cond, weights), floats
    )
    torch.library.opcheck(torch.ops.marfast.denoise.default, (floats[0], t, floats[1], floats[2:]))


def replaced(place: int, value: Any) -> tuple[Any, ...]:
    args = list(inputs())
    args[place] = value
    return tuple(args)


ERRORS = [
    (replaced(0, torch.zeros(5, 3)), ValueError, "x has shape [5, 3]; it must be [R, C]"),
    (replaced(0, torch.zeros(5, 16).int()), TypeError, "x has dtype int32"),
    (replaced(1, torch.zeros(4).long()), ValueError, "t has shape [4]; it must be [R] = [5]"),
    (replaced(1, torch.zeros(5).double()), TypeError, "t has dtype float64"),
    (replaced(2, torch.zeros(5, 23)), ValueError, "cond has shape [5, 23]"),
    (replaced(2, torch.zeros(5, 24).half()), TypeError, "cond has dtype float16"),
    (replaced(3, [torch.zeros(1)] * 3), ValueError, "weights has 3 tensors"),
    ((*inputs(), torch.zeros(9)), ValueError, "packed: it is not what ops.pack_head returns"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        ops.denoise(*args)


def test_the_gpus_launches_take_nothing_from_the_host_after_the_first(monkeypatch):
    """On the meta device, which no kernel reads."""
    launched = []
    monkeypatch.setattr(cuda, "call", lambda name, *_, **__: launched.append(name))
    op, (x, t, cond, weights) = OPS["denoise"], inputs()
    a = op.bind(x.to("meta"), t.to("meta"), cond.to("meta"), [w.to("meta") for w in weights])
    op.backends["cuda"].run(a)
    first = [*launched]
    with OnOneDevice():
        out = op.backends["cuda"].run(a)
    assert launched == 2 * first
    assert out.shape == (5, 32)
    depth = 2
    assert first.count("linear") == 3 + (depth + 1) + 1 + 2 * depth + 1
    assert first.count("layer_norm_modulate") == depth + 1
    assert first.count("silu_sum") == 1
    assert len(first) == 4 * depth + 8
