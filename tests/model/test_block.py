"""A transformer block through the ops against the block's own code."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import marfast
from marfast.model import block as blocks
from marfast.model.block import FastBlock, is_plain_block, through
from marfast.model.packing import autocast, ops_take
from marfast.ops import BackendUnavailable, choice
from marfast.ops.op import OPS
from marfast.reference.transformer import Block

ROWS = torch.arange(3)[:, None]
QUERIES = torch.tensor([[0, 4], [1, 2], [3, 10]])


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block(80, 5, norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6)).eval()


@pytest.mark.parametrize("queries", [None, QUERIES], ids=["all", "some"])
@torch.no_grad()
def test_same_result(block: Block, queries: torch.Tensor | None) -> None:
    x = torch.randn(3, 11, 80)
    expected = block(x) if queries is None else block(x)[ROWS, queries]
    kept = FastBlock()
    fast = kept.bind(block)
    torch.testing.assert_close(fast(x, queries), expected, rtol=1e-5, atol=1e-5)
    with marfast.backend("reference"):
        fast = kept.bind(block)
        assert not fast.by_ops
        assert torch.equal(fast(x, queries), expected)


@pytest.mark.parametrize("queries", [None, QUERIES], ids=["all", "some"])
@pytest.mark.usefixtures("needs_native")
@torch.no_grad()
def test_parts_of_the_rows_give_the_same_bits(
    block: Block, queries: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, bound = torch.randn(3, 11, 80), [FastBlock().bind(block) for _ in range(2)]
    whole = through(bound, x, queries)
    monkeypatch.setattr(blocks, "NEAR", 2 * 11 * 4 * 80)  # two rows
    assert torch.equal(through(bound, x, queries), whole)
    expected = block(block(x))
    expected = expected if queries is None else expected[ROWS, queries]
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("forced", "attention"), [("torch", "torch"), ("cuda", "cuda"), ("triton", "triton")]
)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@torch.no_grad()
def test_a_forced_backend_reaches_the_block(
    block: Block,
    forced: str,
    attention: str,
    dtype: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for op in map(OPS.__getitem__, ("attention", "fused_linear")):
        for name in {"cuda", "triton"} & op.backends.keys():  # as on a device that has them
            made = dataclasses.replace(op.backends["torch"], name=name)
            monkeypatch.setitem(op.backends, name, made)
    x = torch.randn(3, 11, 80)
    with marfast.backend(forced), autocast(x.device, dtype), choice.used() as used:
        fast = FastBlock().bind(block)
        actual = fast(x, QUERIES)
        expected = block(x)[ROWS, QUERIES]
    linear = forced if forced in OPS["fused_linear"].backends else "torch"
    assert used == {"attention": {attention}, "fused_linear": {linear}}
    assert {weight.dtype for weight in fast.weights} == {dtype or torch.float32}
    bound = 1e-5 if dtype is None else 5e-2
    torch.testing.assert_close(actual, expected.float(), rtol=bound, atol=bound)


@torch.no_grad()
def test_a_forced_backend_that_the_block_cannot_have_says_why(block: Block) -> None:
    with marfast.backend("cuda"), pytest.raises(BackendUnavailable, match="qkv is on cpu"):
        FastBlock().bind(block)(torch.randn(3, 11, 80))


@torch.no_grad()
def test_new_weights_are_taken(block: Block, needs_native: None) -> None:
    kept = FastBlock()
    fast = kept.bind(block)
    assert fast.by_ops
    x = torch.randn(3, 11, 80)
    before = fast(x)
    block.mlp.fc1.weight.data.mul_(2)
    block.attn.qkv.bias = nn.Parameter(torch.ones(240))
    after = kept.bind(block)(x)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(after, block(x), rtol=1e-5, atol=1e-5)


class Casts(TorchDispatchMode):
    """Counts the copies of matrices in another dtype."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.ops.aten._to_copy.default and args[0].dim() == 2:
            self.count += args[0].shape[0] in (80, 240, 320)  # a weight's rows; x has 33
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("queries", [None, QUERIES], ids=["all", "some"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_on_a_gpu_weights_are_cast_once_and_bits_are_the_blocks_own(
    block: Block, queries: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the ops' backend is PyTorch."""
    monkeypatch.setattr(blocks, "ops_take", lambda weight: True)
    x, kept = torch.randn(3, 11, 80), FastBlock()
    with marfast.backend("reference"), autocast(x.device, dtype):
        expected = block(x) if queries is None else block(x)[ROWS, queries]
        fast = kept.bind(block)
        assert fast.by_ops
        with Casts() as casts:
            for _ in range(3):
                assert torch.equal(fast(x, queries), expected)
            assert casts.count == 0
            again = kept.bind(block).weights
            assert casts.count == 0
            block(x)
        assert casts.count == 4 * (dtype == torch.bfloat16), "its own code casts them each time"
    assert [t.data_ptr() for t in again] == [t.data_ptr() for t in fast.weights]
    assert {t.dtype for t in fast.weights} == {dtype}


def test_blocks_run_by_the_ops_on_a_gpu_unless_the_reference_is_asked_for() -> None:
    class OnGpu:
        device = torch.device("cuda", 0)

    weight: Any = OnGpu()
    assert ops_take(weight)
    with marfast.backend("torch"):
        assert ops_take(weight)
    with marfast.backend("reference"):
        assert not ops_take(weight)


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        ("attn", "q_norm", nn.LayerNorm(16)),
        ("", "ls1", Scaled()),
        ("", "drop_path2", Scaled()),
        ("", "norm1", nn.RMSNorm(80)),
        ("mlp", "act", nn.SiLU()),
        ("mlp", "act", nn.GELU(approximate="tanh")),
        ("mlp", "fc1", nn.Linear(80, 320, bias=False)),
    ],
)
@torch.no_grad()
def test_a_block_that_does_more_runs_its_own_code(
    block: Block, owner: str, name: str, value: nn.Module
) -> None:
    assert is_plain_block(block)
    setattr(getattr(block, owner) if owner else block, name, value)
    assert not is_plain_block(block)
    fast = FastBlock().bind(block)
    x = torch.randn(3, 11, 80)
    assert torch.equal(fast(x), block(x))
