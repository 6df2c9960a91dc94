"""An op's schema, from the signature of the function that states it."""

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import torch


def schema_of(statement: Callable[..., Any]) -> str:
    """What torch.library.infer_schema makes of it. Torch 2.6 knows Sequence as typing's alone."""

    def stand_in() -> None: ...

    signature = inspect.signature(statement)
    parameters = [
        parameter.replace(annotation=_by_typing(parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    stand_in.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return torch.library.infer_schema(stand_in, mutates_args=())


def _by_typing(annotation: Any) -> Any:
    if typing.get_origin(annotation) is not Sequence:
        return annotation
    return typing.Sequence[typing.get_args(annotation)]  # type: ignore[misc]
