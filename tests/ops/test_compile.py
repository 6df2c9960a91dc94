"""torch.compile and export: each op is one node, and nothing breaks the graph."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marfast import ops
from marfast.model.block import FastBlock
from marfast.ops.op import OPS
from marfast.reference.head import SimpleMLPAdaLN
from marfast.reference.transformer import Block
from tests.ops.heads import sample_inputs


class Nodes:
    """A backend of torch.compile that runs the graph as it is, and keeps it."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward

    def of_marfast(self) -> list[str]:
        (graph,) = self.graphs
        return of_marfast(graph)


def of_marfast(graph: torch.fx.GraphModule) -> list[str]:
    """The ops of marfast in a graph, in order."""
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    return [t.split(".")[1] for t in targets if t.startswith("marfast.")]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_is_a_single_node(name: str) -> None:
    args = OPS[name].example_args()
    nodes = Nodes()
    compiled = torch.compile(getattr(ops, name), fullgraph=True, backend=nodes)
    assert torch.equal(compiled(*args), getattr(ops, name)(*args))
    assert nodes.of_marfast() == [name]


def head() -> tuple[SimpleMLPAdaLN, list[Tensor]]:
    weights = sample_inputs()[3]
    net = SimpleMLPAdaLN(16, 40, 32, 24, 2)
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    return net.eval(), list(net.parameters())


class Head(nn.Module):
    """A head as somebody may write it: `denoise` over its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.net, _ = head()

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return ops.denoise(x, t, cond, list(self.net.parameters()))


def tokens(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x, cond = torch.randn(rows, 16, generator=generator), torch.randn(rows, 24, generator=generator)
    return x, torch.randint(0, 1000, (rows,), generator=generator), cond


def test_the_head_compiles_whole_and_once_for_all_rows() -> None:
    module, nodes = Head(), Nodes()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=nodes)
    for rows in (3, 5, 8):
        assert torch.equal(compiled(*tokens(rows)), module(*tokens(rows)))
    assert nodes.of_marfast() == ["denoise"]


def test_the_references_head_compiles_whole() -> None:
    net, _ = head()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tokens(3)), net(*tokens(3)))


@pytest.mark.parametrize("wanted", [None, 4])
def test_a_decoder_block_compiles_whole(needs_native: None, wanted: int | None) -> None:
    block, nodes = Block(32, 2).eval(), Nodes()
    fast = FastBlock().bind(block)
    assert fast.by_ops
    x = torch.randn(2, 9, 32)
    queries = None if wanted is None else torch.randint(0, 9, (2, wanted))
    compiled = torch.compile(fast.__call__, fullgraph=True, backend=nodes)
    assert torch.equal(compiled(x, queries), fast(x, queries))
    assert nodes.of_marfast() == ["fused_linear", "attention", *["fused_linear"] * 3]


def test_the_head_exports() -> None:
    module = Head()
    rows = torch.export.Dim("rows", min=2, max=4096)
    shapes = {"x": {0: rows}, "t": {0: rows}, "cond": {0: rows}}
    exported = torch.export.export(module, tokens(3), dynamic_shapes=shapes)
    assert of_marfast(exported.graph_module) == ["denoise"]
    for count in (3, 7):
        assert torch.equal(exported.module()(*tokens(count)), module(*tokens(count)))


def test_a_whole_sampler_exports() -> None:
    class Sampler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, _ = head()

        def forward(self, noise: Tensor, step_noise: Tensor, cond: Tensor, *rest: Tensor) -> Tensor:
            return ops.ddpm_sample(noise, step_noise, cond, list(self.net.parameters()), *rest)

    noise, step_noise, cond, _, schedule, timesteps, guidance, *_ = sample_inputs()
    args = (noise, step_noise, cond, schedule, timesteps, guidance)
    module = Sampler()
    exported = torch.export.export(module, args)
    assert of_marfast(exported.graph_module) == ["ddpm_sample"]
    assert torch.equal(exported.module()(*args), module(*args))
