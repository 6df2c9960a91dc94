"""Dataclasses from plain data, by pydantic; errors name the field in one line."""

import json
import numbers
import operator
import reprlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from marfast.errors import ArgumentError, shown


@cache
def _validator(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def validated(kind: type, data: Mapping[str, Any]) -> Any:
    """`kind` from plain data; ArgumentError names the field, what was given, what is allowed."""
    try:
        return _validator(kind).validate_json(json.dumps(data, default=_plain))
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        name = _field(data, first["loc"])
        same = [e["msg"] for e in others if _field(data, e["loc"]) == name]
        also = [text.removeprefix("Input should be ") for text in same]
        allowed = " or ".join([first["msg"].removeprefix("Value error, "), *also])
        if isinstance(first["input"], dict):
            raise ArgumentError(name, allowed) from None
        raise ArgumentError(name, reprlib.repr(first["input"]), allowed) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(kind.__name__.lower(), f"not plain data: {error}") from None


def _plain(number: Any) -> int | float:
    """A number that JSON doesn't know, such as NumPy's, as Python's."""
    try:
        return operator.index(number)
    except TypeError:
        if isinstance(number, numbers.Real):
            return float(number)
        raise TypeError(f"numbers and strings are allowed, not {reprlib.repr(number)}") from None


def _field(data: Any, place: Sequence[int | str]) -> str:
    """The field that a validation error is about, without the kinds and indices inside it."""
    names = []
    for part in place:
        if not isinstance(data, Mapping):
            break
        names.append(shown(part))
        data = data.get(part)
    return ".".join(names)
