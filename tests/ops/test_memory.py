"""Tensors that are not what they look like: memory that is gone, numbers that torch has only noted
as negated. In a process that reads such memory nothing can be asserted any more: it is dead."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS

PACKS: dict[str, Callable[[Any], Tensor]] = {
    "adaln_mlp": lambda a: ops.pack_adaln_mlp(a.w1, a.b1, a.w2, a.b2),
    "fused_linear": lambda a: ops.pack_linear(a.weight, a.bias),
    "denoise": lambda a: ops.pack_head(a.weights),
    "ddpm_sample": lambda a: ops.pack_head(a.weights),
}


def places(name: str) -> Iterator[tuple[str, int | None]]:
    """Each tensor among an op's arguments: of lists the first and the last."""
    a = OPS[name].example_args()
    for field, value in a._asdict().items():
        if isinstance(value, Tensor):
            yield field, None
        elif isinstance(value, list):
            yield from ((field, 0), (field, len(value) - 1))


PLACES = [(name, *place) for name in sorted(OPS) for place in places(name)]


def freed(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy.untyped_storage().resize_(0)
    return copy


def freed_in_the_middle(tensor: Tensor) -> Tensor:
    """Its pointer is not null."""
    whole = torch.zeros(tensor.numel() + 64, dtype=tensor.dtype)
    view = whole[64:].as_strided(tensor.shape, tensor.stride())
    whole.untyped_storage().resize_(0)
    return view


def cut_off(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy.untyped_storage().resize_(copy.untyped_storage().nbytes() - 1)
    return copy


def strided_and_freed(tensor: Tensor) -> Tensor:
    strided = torch.stack([tensor, tensor], -1)[..., 0]
    strided.untyped_storage().resize_(0)
    return strided


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("lose", [freed, freed_in_the_middle, cut_off, strided_and_freed])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "field", "entry"), PLACES)
@pytest.mark.usefixtures("needs_native")
def test_memory_that_is_gone_is_an_error(
    name: str,
    field: str,
    entry: int | None,
    dtype: torch.dtype,
    lose: Callable[[Tensor], Tensor],
    backend: str,
) -> None:
    op = OPS[name]
    if lose is strided_and_freed and field == "x" and name == "group_norm_silu":
        backend = "auto"  # the kernel takes no such layout
    a = op.example_args(dtype)
    value = getattr(a, field)
    lost = lose(value if entry is None else value[entry])
    if entry is not None:
        lost = [lost if i == entry else other for i, other in enumerate(value)]  # type: ignore[assignment]
    with ops.backend(backend), pytest.raises(ValueError, match="lost its memory") as caught:
        op(*a._replace(**{field: lost}))
    assert re.search(rf"\b{field}\b", str(caught.value))


@pytest.mark.parametrize("name", sorted(PACKS))
def test_packed_weights_that_are_gone_are_named(name: str, needs_native: None) -> None:
    a = OPS[name].example_args()
    packed = freed(PACKS[name](a))
    with ops.backend("cpu"), pytest.raises(ValueError, match="packed has lost its memory"):
        OPS[name](*a._replace(packed=packed))


def test_an_empty_tensor_needs_no_memory(needs_native: None) -> None:
    x = torch.zeros(0, 8)
    x.untyped_storage().resize_(0)
    for backend in ("cpu", "torch", "reference"):
        with ops.backend(backend):
            assert ops.layer_norm_modulate(x, x, x).shape == (0, 8)


def negated(tensor: Tensor) -> Tensor:
    """-x as torch notes it, with x in memory."""
    view: Tensor = torch._neg_view(tensor)
    assert view.is_neg()
    assert view.data_ptr() == tensor.data_ptr()
    return view


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize(("name", "field", "entry"), PLACES)
@pytest.mark.usefixtures("needs_native")
def test_a_negated_view_is_its_numbers(
    name: str, field: str, entry: int | None, backend: str
) -> None:
    op = OPS[name]
    a = op.example_args()
    value = getattr(a, field)
    tensor = value if entry is None else value[entry]
    if not tensor.is_floating_point():
        pytest.skip("torch negates floating point alone so")

    def run(negate: Callable[[Tensor], Tensor]) -> Tensor:
        given = negate(tensor)
        if entry is not None:
            given = [given if i == entry else v for i, v in enumerate(value)]  # type: ignore[assignment]
        with ops.backend(backend):
            return op(*a._replace(**{field: given}))

    torch.testing.assert_close(run(negated), run(torch.neg), rtol=0, atol=0, equal_nan=True)


def test_negated_views_are_packed_as_their_numbers(needs_native: None) -> None:
    weight, bias = torch.randn(40, 20), torch.randn(40)
    assert torch.equal(
        ops.pack_linear(negated(weight), negated(bias)), ops.pack_linear(-weight, -bias)
    )
    square = torch.randn(20, 20), torch.randn(20), torch.randn(20, 20), torch.randn(20)
    assert torch.equal(
        ops.pack_adaln_mlp(*map(negated, square)), ops.pack_adaln_mlp(*map(torch.neg, square))
    )
    weights = ops.denoise.example_args().weights
    assert torch.equal(
        ops.pack_head([*map(negated, weights)]), ops.pack_head([*map(torch.neg, weights)])
    )
