"""`adaln_mlp`: the defined order of operations, accuracy, hostile shapes."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.adaln_mlp.cpu import GROUP
from marfast.ops.runtime import cpu
from marfast.reference import denoise as head
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa, with_defined_bits

pytestmark = pytest.mark.usefixtures("needs_native")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def inputs(
    rows: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Any, ...]:
    """All arguments up to `eps`; dtype is the MLP's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    mlp = [(draw(*sizes) * width**-0.5).to(dtype) for sizes in ((width, width), (width,)) * 2]
    return (*(draw(rows, width) for _ in range(4)), draw(width) + 1, draw(width), *mlp, 1e-6)


def reference(*args: Any) -> Tensor:
    x: Tensor = args[0]
    return head.adaln_mlp(*args).to(x.dtype)


@pytest.mark.parametrize(
    ("rows", "width"),
    [(0, 16), (1, 1), (2, 15), (3, 257), (17, 64), (129, 33), (2 * GROUP + 3, 40), (5, 1024)],
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("guarded_outputs")
def test_every_instruction_set_and_thread_count_gives_the_same_bits(rows, width, dtype):
    args = inputs(rows, width, dtype)
    results = on_every_isa(ops.adaln_mlp, *args)
    bound = 1e-4 if dtype == torch.float32 else 0.1
    for actual in results.values():
        torch.testing.assert_close(actual, reference(*args), rtol=bound, atol=bound)
    for isa, actual in with_defined_bits(results, dtype).items():
        assert_bitwise_equal(actual, results["portable"], isa)
    expected = ops.adaln_mlp(*args)
    try:
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            assert_bitwise_equal(ops.adaln_mlp(*args), expected, f"{threads} threads")
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [40, 1024])
def test_error_against_float64(width, dtype):
    cases = [inputs(9, width, dtype, seed=seed) for seed in range(8)]
    assert_as_accurate(ops.adaln_mlp, reference, cases)


def test_products_follow_the_defined_order():
    """docs/numerics.md, `linear`: blocks of 256 values of k, each one chain of FMAs (in float64 and
    rounded to float32 here: exact but for double rounding, which is rare)."""
    width = 2 * 256 + 7
    x, *_, w2, b2, eps = inputs(2, width)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    ln_weight, ln_bias = torch.ones(width), torch.zeros(width)

    def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        total = torch.zeros(len(rows), len(weight))
        for block in torch.arange(width).split(256):
            chain = torch.zeros_like(total)
            for k in block.tolist():
                product = rows[:, k, None].double() * weight[:, k].double()
                chain = (chain.double() + product).float()
            total = chain if block[0] == 0 else total + chain
        return total + bias

    # the first product passes its rows on: SiLU(v) is v where v is large
    normed = ops.layer_norm_modulate(x, zero, zero, ln_weight, ln_bias)
    identity = torch.eye(width)
    high = torch.full((width,), 30.0)
    hidden = ops.adaln_mlp(
        zero, normed, zero - 1, one, ln_weight, ln_bias, identity, high, w2, b2, eps
    )
    assert_bitwise_equal(hidden, linear(normed + high, w2, b2))


def test_packing_ahead_and_layouts_change_nothing():
    args = inputs(9, 40)
    expected = ops.adaln_mlp(*args)
    assert_bitwise_equal(ops.adaln_mlp(*args, ops.pack_adaln_mlp(*args[6:10])), expected)

    def strided(value: Any) -> Any:
        return torch.stack([value, value], -1)[..., 0] if isinstance(value, Tensor) else value

    assert_bitwise_equal(ops.adaln_mlp(*map(strided, args)), expected)
    shift, scale, gate = torch.cat(args[1:4], dim=1).chunk(3, dim=1)
    assert_bitwise_equal(ops.adaln_mlp(args[0], shift, scale, gate, *args[4:]), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_extreme_inputs_stay_in_their_row(value):
    args = inputs(5, 40)
    expected = ops.adaln_mlp(*args)
    args[0][2, 7] = value
    actual = ops.adaln_mlp(*args)
    assert_bitwise_equal(actual[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
    assert torch.equal(actual[2].isfinite(), reference(*args)[2].isfinite())


def test_rows_of_half_precision():
    args = [arg.bfloat16() if isinstance(arg, Tensor) else arg for arg in inputs(4, 48)]
    as_float32 = [arg.float() if i < 6 else arg for i, arg in enumerate(args)]
    actual = ops.adaln_mlp(*args)
    assert_bitwise_equal(actual, ops.adaln_mlp(*as_float32).bfloat16())
    with cpu.cpu_isa("portable"), ops.backend("cpu"):
        torch.testing.assert_close(ops.adaln_mlp(*args), actual, rtol=0.02, atol=0.02)


def test_gradients():
    args = [
        arg.double().requires_grad_() if isinstance(arg, Tensor) else arg for arg in inputs(3, 5)
    ]
    assert torch.autograd.gradcheck(ops.adaln_mlp, args)
    torch.library.opcheck(torch.ops.marfast.adaln_mlp.default, args)


def replaced(place: int, value: Any) -> tuple[Any, ...]:
    args = list(inputs(4, 16))
    args[place] = value
    return tuple(args)


ERRORS = [
    (replaced(0, torch.zeros(16)), ValueError, "x has shape [16]; it must be [R, w]"),
    (replaced(0, torch.zeros(4, 0)), ValueError, "x has shape [4, 0]"),
    (replaced(0, torch.zeros(4, 16).int()), TypeError, "x has dtype int32"),
    (replaced(1, torch.zeros(3, 16)), ValueError, "shift has shape [3, 16]"),
    (replaced(3, torch.zeros(4, 15)), ValueError, "gate has shape [4, 15]"),
    (replaced(4, torch.zeros(15)), ValueError, "ln_weight has shape [15]"),
    (replaced(6, torch.zeros(16, 15)), ValueError, "w1 has shape [16, 15]"),
    (replaced(8, torch.zeros(16, 16).half()), TypeError, "w2 has dtype float16"),
    (replaced(9, torch.zeros(3)), ValueError, "b2 has shape [3]"),
    ((*inputs(4, 16), torch.zeros(3)), ValueError, "packed: it is not what ops.pack_adaln_mlp"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        ops.adaln_mlp(*args)
