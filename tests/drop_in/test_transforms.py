"""Who transforms or exports an accelerated module gets its own code."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.reference.head import SimpleMLPAdaLN
from tests.drop_in.test_habits import make


@pytest.fixture
def head() -> SimpleMLPAdaLN:
    net: SimpleMLPAdaLN = make().diffloss.net
    return net


def tokens(head: SimpleMLPAdaLN) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(3, 16), torch.arange(3), torch.randn(3, head.cond_embed.in_features)


@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap", "forward_ad"])
def test_transforms(head: SimpleMLPAdaLN, transform: str) -> None:
    x, t, c = tokens(head)

    def result() -> Tensor:
        if transform == "grad":
            return torch.func.grad(lambda x: head(x, t, c).square().sum())(x)
        if transform == "jvp":
            return torch.func.jvp(lambda x: head(x, t, c), (x,), (torch.ones_like(x),))[1]
        if transform == "vmap":
            return torch.vmap(lambda x: head(x, t, c))(x[None])
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            return torch.autograd.forward_ad.unpack_dual(head(dual, t, c)).tangent

    with torch.no_grad():
        expected = result()
        marfast.accelerate(head)
        torch.testing.assert_close(result(), expected)


class Around(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *args: Tensor) -> Any:
        return self.part(*args)


@pytest.fixture
def _compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_compiler")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("part", ["head", "around a head", "block"])
def test_export(part: str, strict: bool) -> None:
    model = make()
    if part == "block":
        module, args = (
            model.encoder_blocks[0],
            (torch.randn(2, 5, model.encoder_norm.weight.numel()),),
        )
    else:
        module, args = model.diffloss.net, tokens(model.diffloss.net)
    given = Around(module) if part.startswith("around") else module
    expected = given(*args)
    marfast.accelerate(model)
    given(*args)
    exported = torch.export.export(given.eval(), args, strict=strict)
    assert not any("marfast" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*args), expected)


@pytest.mark.usefixtures("_compiler")
def test_a_whole_graph_is_refused_with_a_way_out(head: SimpleMLPAdaLN) -> None:
    args = tokens(marfast.accelerate(head))
    head(*args)
    with pytest.raises(RuntimeError, match=r"marfast\.restore"):
        torch.compile(head, backend="eager", fullgraph=True)(*args)
    whole = torch.compile(marfast.restore(head), backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*args), head(*args))
