"""Schemas as every supported torch infers them."""

import typing
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from marfast.ops.op import OPS
from marfast.ops.schema import schema_of


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_schema_is_what_torch_infers_of_the_statement(name: str) -> None:
    statement = OPS[name].__wrapped__
    assert schema_of(statement) == torch.library.infer_schema(statement, mutates_args=())


def test_torch_is_shown_typings_sequences_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch 2.6 looks annotations up in a table that has no other."""

    def statement(x: Tensor, weights: Sequence[Tensor], scale: float = 1.0) -> Tensor:
        return x

    shown: dict[str, object] = {}

    def infer(function: object, mutates_args: object) -> str:
        signature = function.__signature__  # type: ignore[attr-defined]
        shown.update({name: p.annotation for name, p in signature.parameters.items()})
        return ""

    monkeypatch.setattr(torch.library, "infer_schema", infer)
    schema_of(statement)
    assert shown == {"x": Tensor, "weights": typing.Sequence[Tensor], "scale": float}
