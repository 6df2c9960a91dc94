"""torch.func of every op: the definition's values and derivatives, whatever runs it otherwise."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from tests.ops.heads import sample_inputs
from tests.ops.test_forward_mode import TRANSFORMABLE, dense, floats


def arguments(name: str) -> Any:
    """The op's example, of a small head where there is one."""
    op = OPS[name]
    noise, step_noise, cond, weights, *rest = sample_inputs()
    if name == "ddpm_sample":
        return op.bind(noise, step_noise, cond, weights, *rest)
    if name == "denoise":
        return op.bind(noise, torch.arange(len(noise)), cond[: len(noise)], weights)
    return dense(op.example_args())


def of(function: Any, a: Any, place: int) -> Any:
    """The op as a function of one argument."""
    return lambda value: function(*a._replace(**{a._fields[place]: value}))


def loss(function: Any) -> Any:
    return lambda value: function(value).float().square().sum()


@pytest.mark.parametrize("name", TRANSFORMABLE)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradients_are_the_definitions(name: str, backend: str) -> None:
    op, a = OPS[name], arguments(name)
    for place in floats(a):
        expected = torch.func.grad(loss(of(op.plain, a, place)))(a[place])
        with ops.backend(backend):
            actual = torch.func.grad(loss(of(op, a, place)))(a[place])
        assert actual.abs().max() > 0
        assert torch.equal(actual, expected), a._fields[place]


@pytest.mark.parametrize("name", ["ddpm_sample", "denoise"])
def test_gradients_of_weights_in_a_list(name: str) -> None:
    op, a = OPS[name], arguments(name)
    actual = torch.func.grad(loss(of(op, a, a._fields.index("weights"))))(a.weights)
    expected = torch.func.grad(loss(of(op.plain, a, a._fields.index("weights"))))(a.weights)
    assert all(map(torch.equal, actual, expected))
    assert actual[-1].abs().max() > 0


# torch's group_norm has no rule for channels_last
@pytest.mark.parametrize("name", sorted({*TRANSFORMABLE} - {"group_norm_silu"}))
def test_vmap_is_a_loop(name: str) -> None:
    op, a = OPS[name], arguments(name)
    place = floats(a)[0]
    several = torch.stack([a[place], 0.5 * a[place]])
    actual = torch.vmap(of(op, a, place))(several)
    assert torch.equal(actual, torch.vmap(of(op.plain, a, place))(several))
    torch.testing.assert_close(actual, torch.stack([*map(of(op, a, place), several)]))


def test_transforms_nest() -> None:
    x, shift, scale = torch.randn(3, 4, 5, dtype=torch.float64)

    def of_rows(function: Any) -> Any:
        def call(row: Tensor) -> Tensor:
            rows = row[None], shift[:1], scale[:1]
            return function(*rows).square().sum()

        return torch.vmap(torch.func.hessian(call))(x)

    actual, expected = map(of_rows, (ops.layer_norm_modulate, ops.layer_norm_modulate.plain))
    torch.testing.assert_close(actual, expected)
    assert actual.abs().max() > 0


def test_arguments_are_checked_under_a_transform() -> None:
    x = torch.randn(2, 5)
    with pytest.raises(ValueError, match=r"shift has shape \[2, 4\]"):
        torch.func.grad(lambda x: ops.layer_norm_modulate(x, x[:, 1:], x).sum())(x)
    with pytest.raises(ValueError, match=r"shift has shape \[2, 4\]"):
        torch.vmap(lambda x: ops.layer_norm_modulate(x, x[:, 1:], x))(x[None])


def test_gradients_in_batches_are_those_of_a_loop() -> None:
    x, shift, scale = torch.randn(3, 4, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian

    def call(x: Tensor) -> Tensor:
        return ops.layer_norm_modulate(x, shift, scale)

    torch.testing.assert_close(jacobian(call, x, vectorize=True), jacobian(call, x))


def test_an_op_that_takes_no_part_says_so() -> None:
    a = OPS["diffusion_loss_gradients"].example_args()
    with pytest.raises(NotImplementedError, match=r"don't take it; they take ops\.diffusion_loss"):
        torch.func.grad(loss(of(ops.diffusion_loss_gradients, a, 1)))(a.cond)
