"""`attention`: against softmax(QKᵀ/√hd)V written out, in float64."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.runtime import cpu
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def inputs(
    batch: int = 2,
    length: int = 9,
    heads: int = 3,
    head_dim: int = 8,
    wanted: int | None = None,
    causal: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch, length, 3, heads, head_dim, generator=generator).to(dtype)
    queries = None
    if wanted is not None:
        queries = torch.randint(0, length, (batch, wanted), generator=generator)
    return qkv, queries, causal


def written_out(qkv: Tensor, queries: Tensor | None, causal: bool) -> Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scores = q @ k.transpose(-1, -2) / qkv.shape[-1] ** 0.5
    if causal:
        scores = scores + torch.full_like(scores[0, 0], -torch.inf).triu(1)
    out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return (
        out if queries is None else torch.stack([o[i] for o, i in zip(out, queries, strict=True)])
    )


BACKENDS = ["torch", "reference", *(["cpu"] if cpu.is_built()[0] else [])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("wanted", [None, 0, 1, 5])
@pytest.mark.parametrize("head_dim", [64, 80, 7])  # MAR-B's and L's, MAR-H's, an odd one
def test_it_is_the_formula(backend, causal, wanted, head_dim):
    args = inputs(head_dim=head_dim, wanted=wanted, causal=causal)
    exact = written_out(args[0].double(), *args[1:])
    with ops.backend(backend):
        actual = ops.attention(*args)
    torch.testing.assert_close(actual.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_error_against_float64(dtype, causal):
    cases = [
        inputs(length=40, wanted=6, causal=causal, dtype=dtype, seed=seed) for seed in range(8)
    ]
    with ops.backend("reference"):
        plain = [ops.attention(*case) for case in cases]
    results = iter(plain)
    assert_as_accurate(
        ops.attention,
        lambda *args: written_out(*args) if args[0].dtype == torch.float64 else next(results),
        cases,
    )


# The CPU's kernel takes up to 56 queries at a time, tiles of 32 keys, blocks of 256.
SIZES = [(1, 1, 1, None), (2, 57, 64, None), (1, 300, 33, 70), (1, 257, 7, 3)]


@pytest.mark.parametrize(("batch", "length", "head_dim", "wanted"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("needs_native", "guarded_outputs")
def test_every_instruction_set_and_thread_count_gives_the_same_bits(
    batch, length, head_dim, wanted, causal, dtype
):
    sizes = {"batch": batch, "length": length, "head_dim": head_dim, "wanted": wanted}
    args = inputs(**sizes, causal=causal, dtype=dtype)
    results = on_every_isa(ops.attention, *args)
    for isa, actual in results.items():
        assert_bitwise_equal(actual, results["portable"], isa)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert_bitwise_equal(ops.attention(*args), results["portable"], "3 threads")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"length": 0}, {"wanted": 0}], ids=str)
def test_nothing_is_attended_to(sizes):
    assert ops.attention(*inputs(**sizes)).numel() == 0


@pytest.mark.usefixtures("needs_native")
def test_a_query_depends_on_no_other_query_or_image():
    qkv, _, _ = inputs(batch=3, length=70, head_dim=16)
    whole = ops.attention(qkv)
    assert_bitwise_equal(ops.attention(qkv[1:2]), whole[1:2])
    some = torch.tensor([[3, 69], [0, 0], [64, 5]])
    expected = torch.stack([o[i] for o, i in zip(whole, some, strict=True)])
    assert_bitwise_equal(ops.attention(qkv, some), expected)


def test_layouts_do_not_matter():
    qkv, queries, _ = inputs(wanted=4)
    strided = torch.stack([qkv, qkv], -1)[..., 0]
    torch.testing.assert_close(ops.attention(strided, queries), ops.attention(qkv, queries))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("wanted", [None, 3])
def test_gradients(wanted, causal):
    qkv, queries, _ = inputs(length=5, heads=2, head_dim=4, wanted=wanted)
    args = (qkv.double().requires_grad_(), queries, causal)
    assert torch.autograd.gradcheck(ops.attention, args)
    torch.library.opcheck(torch.ops.marfast.attention.default, args)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("position", [-1, -9, 9, 2**40])
def test_a_query_is_a_position_on_every_backend(backend, position):
    qkv, queries, _ = inputs(wanted=2)
    queries[1, 1] = position
    with ops.backend(backend), pytest.raises(ValueError, match=rf"queries: {position}; .*0 to 8"):
        ops.attention(qkv, queries)


def test_the_definition_of_what_is_no_position_is_nan():
    """As on devices whose tensors nobody waits for."""
    qkv, queries, _ = inputs(wanted=3)
    queries[0, 1], queries[1, 2] = -1, 9
    result = ops.attention.plain(qkv, queries)
    assert result[0, 1].isnan().all()
    assert result[1, 2].isnan().all()
    assert result.isnan().sum() == 2 * result.shape[2]


ERRORS = [
    ((torch.zeros(2, 3, 3, 8),), ValueError, "qkv has shape [2, 3, 3, 8]; it must be [B, L, 3"),
    ((torch.zeros(2, 3, 2, 1, 8),), ValueError, "qkv has shape [2, 3, 2, 1, 8]"),
    ((torch.zeros(2, 3, 3, 0, 8),), ValueError, "qkv has shape [2, 3, 3, 0, 8]"),
    ((torch.zeros(2, 3, 3, 1, 8).int(),), TypeError, "qkv has dtype int32; it must be float32"),
    ((inputs()[0], torch.zeros(2, 1)), TypeError, "queries has dtype float32"),
    ((inputs()[0], torch.zeros(3, 1).long()), ValueError, "queries has shape [3, 1]"),
    ((inputs()[0], torch.zeros(3).long()), ValueError, "queries has shape [3]"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        ops.attention(*args)
