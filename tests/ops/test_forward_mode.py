"""Forward-mode derivatives of every op: the definition's, and never 0 without a word."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import marfast
from marfast import ops
from marfast.ops.op import OPS
from tests.models import tiny_pipeline

TRANSFORMABLE = sorted(name for name, op in OPS.items() if not op.transformed)


def floats(a: Any) -> list[int]:
    """The places of an op's arguments that are tensors of floating point."""
    return [i for i, v in enumerate(a) if isinstance(v, Tensor) and v.is_floating_point()]


def dense(a: Any) -> Any:
    return type(a)(*(v.contiguous() if isinstance(v, Tensor) else v for v in a))


@pytest.mark.parametrize("name", TRANSFORMABLE)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_they_are_the_definitions(name: str, backend: str) -> None:
    op = OPS[name]
    a = op.example_args()
    places = floats(a)
    generator = torch.Generator().manual_seed(0)
    tangents = tuple(torch.randn(a[i].shape, generator=generator) for i in places)

    def of(function: Any, a: Any) -> Any:
        def call(*values: Tensor) -> Any:
            named = {a._fields[i]: value for i, value in zip(places, values, strict=True)}
            return function(*a._replace(**named))

        return torch.func.jvp(call, tuple(a[i] for i in places), tangents)[1]

    with ops.backend(backend):
        actual = of(op, a)
    expected = of(op.plain, dense(a))
    assert expected.abs().max() > 0
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", TRANSFORMABLE)
def test_each_argument_counts_alone(name: str) -> None:
    op = OPS[name]
    a = op.example_args()
    lists = {i: v for i, v in enumerate(a) if isinstance(v, list)}
    with forward_ad.dual_level():
        for place in floats(a):
            dual = forward_ad.make_dual(a[place], torch.ones_like(a[place]))
            result = op(*a._replace(**{a._fields[place]: dual}))
            assert forward_ad.unpack_dual(result).tangent is not None
        for place, values in lists.items():
            last = forward_ad.make_dual(values[-1], torch.ones_like(values[-1]))
            result = op(*a._replace(**{a._fields[place]: [*values[:-1], last]}))
            tangent = forward_ad.unpack_dual(result).tangent
            assert tangent is not None
            assert tangent.abs().max() > 0


@pytest.mark.parametrize("causal", [False, True])
def test_attentions_against_softmax_written_out(causal: bool) -> None:
    qkv, tangent = torch.randn(2, 2, 7, 3, 2, 8, dtype=torch.float64)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1) & causal

    def written_out(qkv: Tensor) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.mT / 8**0.5).masked_fill(hidden, -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    actual = torch.func.jvp(lambda x: ops.attention(x, causal=causal), (qkv,), (tangent,))
    expected = torch.func.jvp(written_out, (qkv,), (tangent,))
    torch.testing.assert_close(actual, expected)


def test_against_finite_differences() -> None:
    x, shift = torch.randn(2, 3, 5, dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: ops.layer_norm_modulate(x, shift, shift), x, check_forward_ad=True
    )


def test_an_op_without_gradient_says_so() -> None:
    a = ops.ddpm_sample.example_args()
    result = ops.ddpm_sample(*a._replace(cond=a.cond.requires_grad_()))
    with pytest.raises(RuntimeError, match="no autograd formula"):
        result.sum().backward()


@pytest.mark.parametrize("level", ["func", "dual"])
def test_weights_of_an_accelerated_head_count(level: str) -> None:
    """They are packed once and kept: not with tangents."""
    head = tiny_pipeline().model.module.diffloss.net.eval()
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(3, 16, generator=generator), torch.randn(3, 48, generator=generator)
    t = torch.tensor([0, 500, 999])
    weights = {name: weight.detach() for name, weight in head.named_parameters()}
    tangents = {
        name: torch.randn(weight.shape, generator=generator) for name, weight in weights.items()
    }

    def output(weights: dict[str, Tensor]) -> Any:
        return torch.func.functional_call(head, weights, (x, t, c))

    def derivative() -> Any:
        if level == "func":
            return torch.func.jvp(output, (weights,), (tangents,))[1]
        with forward_ad.dual_level():
            dual = {k: forward_ad.make_dual(weight, tangents[k]) for k, weight in weights.items()}
            return forward_ad.unpack_dual(output(dual)).tangent

    with torch.no_grad():
        expected = derivative()
        marfast.accelerate(head)
        head(x, t, c)
        torch.testing.assert_close(derivative(), expected)
