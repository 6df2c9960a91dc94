"""`diffusion_loss` and its gradients: the original's to the bit, accuracy, what is kept, hostile
shapes."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.diffusion_loss import rows
from marfast.ops.head import HeadShape
from marfast.ops.op import OPS
from marfast.reference import diffusion_loss as reference
from marfast.reference.head import DiffLoss
from marfast.verifying.case import fill, numbers
from marfast.verifying.compare import to_double
from tests.helpers import assert_as_accurate, assert_bitwise_equal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NAMES = ("target", "cond", "t", "noise", "weights", "mask")


def inputs(
    tokens: int = 7,
    *,
    copies: int = 2,
    channels: int = 16,
    condition: int = 24,
    width: int = 40,
    depth: int = 2,
    frequencies: int = 256,
    masked: bool = True,
    scale: float = 1.0,
    first: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Any, ...]:
    """All arguments but `recompute`; dtype is the weights'. first: many rows have t = 0."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    shape = HeadShape(channels, condition, width, depth, frequencies, width)
    number = copies * tokens
    t = torch.randint(0, 1000, (number,), generator=generator)
    if first:
        t[: number // 2] = 0
    mask = (torch.arange(tokens) % 3 != 1).float()
    return (
        draw(tokens, channels) * scale,
        draw(tokens, condition),
        t,
        draw(number, channels),
        [(draw(*s) * max(1, s[-1]) ** -0.5).to(dtype) for s in shape.expected()],
        mask if masked else None,
    )


def parts(args: tuple[Any, ...], flat: Tensor) -> list[Tensor]:
    """Of what `diffusion_loss_gradients` gives: the loss, the gradients of cond and the weights."""
    shapes = [torch.Size(), args[1].shape, *(weight.shape for weight in args[4])]
    pieces = flat.split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def in_proportion(function: Any) -> Any:
    """`diffusion_loss_gradients` by a function, each part relative to its exact values."""

    def run(*args: Any) -> Tensor:
        exact = parts(args, reference.diffusion_loss_gradients(*to_double(args)))
        found = parts(args, function(*args))
        scaled = [
            (part.double() / right.square().mean().sqrt()).flatten()
            for part, right in zip(found, exact, strict=True)
            if right.abs().max() > 0
        ]
        return torch.cat(scaled)

    return run


@pytest.mark.parametrize("mask", [None, "some", "all"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_reference_backend_is_diffloss_to_the_bit(mask, recompute):
    copies, tokens, channels, condition = 4, 40, 16, 24
    diffloss = fill(DiffLoss(channels, condition, 2, 40, "5"))
    target, z = numbers(tokens, channels, seed=1), numbers(tokens, condition, seed=2)
    some = (torch.arange(tokens) % 3 > 0).float()
    chosen = {None: None, "some": some, "all": torch.ones(tokens)}[mask]
    z.requires_grad_()
    wanted = [z, *diffloss.net.parameters()]

    torch.manual_seed(0)
    many = None if chosen is None else chosen.repeat(copies)
    expected = diffloss(target.repeat(copies, 1), z.repeat(copies, 1), many)
    gradients = torch.autograd.grad(0.3 * expected, wanted)

    torch.manual_seed(0)
    t = torch.randint(0, 1000, (copies * tokens,))
    noise = torch.randn(copies * tokens, channels)
    with ops.backend("reference"):
        loss = ops.diffusion_loss(target, z, t, noise, wanted[1:], chosen, recompute)
        assert_bitwise_equal(loss, expected)
        for actual, right in zip(torch.autograd.grad(0.3 * loss, wanted), gradients, strict=True):
            assert_bitwise_equal(actual, right)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"masked": False, "copies": 1, "width": 96},
        {"depth": 0, "channels": 3, "frequencies": 7},
        {"tokens": 30, "copies": 3, "first": True, "scale": 0.3},
    ],
    ids=str,
)
def test_error_against_float64(sizes, dtype):
    cases = [inputs(**sizes, dtype=dtype, seed=seed) for seed in range(8)]
    assert_as_accurate(ops.diffusion_loss, reference.diffusion_loss, cases)
    assert_as_accurate(
        in_proportion(ops.diffusion_loss_gradients),
        in_proportion(reference.diffusion_loss_gradients),
        cases,
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_flow_through_what_computes_them(recompute):
    target, cond, t, noise, weights, mask = inputs()
    cond.requires_grad_()
    weights = [weight.requires_grad_(place != 3) for place, weight in enumerate(weights)]
    loss = ops.diffusion_loss(target, cond, t, noise, weights, mask, recompute)
    flat = ops.diffusion_loss_gradients(target, cond, t, noise, weights, mask)
    value, *expected = parts((target, cond, t, noise, weights, mask), flat)
    assert torch.equal(loss, value)
    loss.backward(torch.tensor(0.5))
    for place, (tensor, right) in enumerate(zip([cond, *weights], expected, strict=True)):
        if place == 4:
            assert tensor.grad is None
        else:
            assert torch.equal(tensor.grad, 0.5 * right)


@pytest.mark.parametrize("recompute", [False, True])
def test_no_activation_is_kept(recompute):
    """Between forward and backward: the gradients, or nothing but the arguments."""
    target, cond, t, noise, weights, mask = inputs(500, copies=4)
    for tensor in (cond, *weights):
        tensor.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ops.diffusion_loss(target, cond, t, noise, weights, mask, recompute)
    if recompute:
        given = {tensor.data_ptr() for tensor in (target, cond, t, noise, mask, *weights)}
        assert {tensor.data_ptr() for tensor in kept} == given
    else:
        numbers = 1 + cond.numel() + sum(weight.numel() for weight in weights)
        assert [tensor.shape for tensor in kept] == [(numbers,)]


@pytest.mark.parametrize("tokens", [1, 3, 100])
def test_chunks_of_tokens_change_rounding_alone(monkeypatch, tokens):
    args = inputs(23, copies=3)
    whole = ops.diffusion_loss_gradients(*args)
    a_token = 9 * 3 * 40 * 3 * 4
    monkeypatch.setattr(rows, "CPU_BUDGET", a_token * tokens)
    loss, flat = ops.diffusion_loss(*args), ops.diffusion_loss_gradients(*args)
    torch.testing.assert_close(flat, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, whole[0])


def test_tokens_of_weight_0_are_not_read():
    target, cond, t, noise, weights, mask = inputs()
    expected = ops.diffusion_loss_gradients(target, cond, t, noise, weights, mask)
    left_out = mask == 0
    target[left_out], cond[left_out] = torch.nan, torch.nan
    noise[left_out.repeat(2)] = torch.nan
    actual = ops.diffusion_loss_gradients(target, cond, t, noise, weights, mask)
    assert_bitwise_equal(actual, expected)
    assert_bitwise_equal(ops.diffusion_loss(target, cond, t, noise, weights, mask), expected[0])
    assert parts((target, cond, t, noise, weights), actual)[1][left_out].abs().max() == 0


def test_a_mask_weighs():
    *args, _ = inputs()
    mask = torch.tensor([0.5, 0, 2, 1, 0, 0.25, 3])
    for kind in (mask, mask.half(), mask.bool()):
        expected = reference.diffusion_loss_gradients(*args, kind)
        actual = ops.diffusion_loss_gradients(*args, kind)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    nothing = ops.diffusion_loss_gradients(*args, torch.zeros(7))
    assert nothing.isnan().all()
    assert ops.diffusion_loss(*args, torch.zeros(7)).isnan()


@pytest.mark.parametrize("first", [False, True])
def test_gradients_in_float64(first):
    """The bound's mean is held fixed, so that differences of the loss are no check."""
    args = to_double(inputs(20, copies=3, first=first, scale=0.7))
    exact = reference.diffusion_loss_gradients(*args)
    assert (ops.diffusion_loss_gradients(*args) - exact).abs().max() < 1e-11 * exact.abs().max()


def test_other_gradients_are_the_references():
    target, cond, t, noise, weights, mask = inputs()
    wanted = [tensor.requires_grad_() for tensor in (target, noise, cond)]
    loss = ops.diffusion_loss(target, cond, t, noise, weights, mask)
    expected = reference.diffusion_loss(target, cond, t, noise, weights, mask)
    actual = torch.autograd.grad(loss, wanted)
    for ours, right in zip(actual, torch.autograd.grad(expected, wanted), strict=True):
        assert_bitwise_equal(ours, right)


@pytest.mark.parametrize("recompute", [False, True])
def test_opcheck(recompute):
    args = inputs(3, width=4, depth=1, channels=2, condition=3, frequencies=6)
    for tensor in (args[1], *args[4]):
        tensor.requires_grad_()
    torch.library.opcheck(torch.ops.marfast.diffusion_loss.default, (*args, recompute))
    with torch.no_grad():
        torch.library.opcheck(torch.ops.marfast.diffusion_loss_gradients.default, args)


def test_it_compiles_whole():
    target, cond, t, noise, weights, mask = inputs()
    wanted = [tensor.requires_grad_() for tensor in (cond, *weights)]

    def loss(cond: Tensor, *weights: Tensor) -> Tensor:
        return 2 * ops.diffusion_loss(target, cond * 1.5, t, noise, weights, mask)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(*wanted), wanted)
    for actual, right in zip(torch.autograd.grad(compiled(*wanted), wanted), expected, strict=True):
        assert torch.equal(actual, right)


def test_no_rows():
    args = inputs(0)
    assert ops.diffusion_loss(*args).isnan()
    assert ops.diffusion_loss_gradients(*args).isnan().all()


def test_float16_gradients_do_not_vanish():
    """Those of a mean over many rows, whose own are below what float16 holds."""
    args = inputs(3000, copies=4, width=16, depth=1, masked=False, dtype=torch.float16)
    exact = parts(args, reference.diffusion_loss_gradients(*to_double(args)))
    found = parts(args, ops.diffusion_loss_gradients(*args))
    for part, right in zip(found, exact, strict=True):
        assert (part - right).norm() < 0.01 * right.norm()


def replaced(name: str, value: Any) -> tuple[Any, ...]:
    args = list(inputs())
    args[NAMES.index(name)] = value
    return tuple(args)


ERRORS = [
    (replaced("target", torch.zeros(7, 3)), ValueError, "target has shape [7, 3]; it must be [N,"),
    (replaced("target", torch.zeros(7, 16).half()), TypeError, "target has dtype float16"),
    (replaced("cond", torch.zeros(7, 23)), ValueError, "cond has shape [7, 23]"),
    (replaced("t", torch.zeros(15).long()), ValueError, "t has 15 rows; it must have M N, some"),
    (replaced("t", torch.zeros(0).long()), ValueError, "t has 0 rows; it must have M N, some"),
    (replaced("t", torch.zeros(14)), TypeError, "t has dtype float32"),
    (replaced("t", torch.full((14,), 1000)), ValueError, "t: timesteps 1000 to 1000; allowed"),
    (replaced("noise", torch.zeros(7, 16)), ValueError, "noise has shape [7, 16]"),
    (replaced("weights", [torch.zeros(1)] * 3), ValueError, "weights has 3 tensors"),
    (replaced("mask", torch.zeros(14)), ValueError, "mask has shape [14]; it must be [N] = [7]"),
    (replaced("mask", torch.zeros(7).long()), TypeError, "mask has dtype int64"),
]


@pytest.mark.parametrize("op", ["diffusion_loss", "diffusion_loss_gradients"])
@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(op, args, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        OPS[op](*args)
