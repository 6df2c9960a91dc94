"""Dataclasses from plain data; errors name the field, what was given, what is allowed.

A field's annotation has what reads it: `depth: Annotated[int, whole(1, 1024)]`. A reader takes
plain data (numbers are Python's by then) and gives the field's value, or raises ValueError with
what is allowed.
"""

import dataclasses
import math
import numbers
import operator
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from marfast.errors import ArgumentError, shown

Reader = Callable[[Any], Any]


def validated(kind: type, data: Any) -> Any:
    """`kind` from plain data; ArgumentError names the field, what was given, what is allowed."""
    if not isinstance(data, Mapping):
        raise ValueError("allowed is an object")
    readers = {
        name: hint.__metadata__[0]
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }
    values = {}
    for key, given in data.items():
        plain = _plain(given)
        try:
            if key not in readers:
                raise ValueError(f"no such name; known are {', '.join(readers)}")
            values[key] = readers[key](plain)
        except ArgumentError as error:
            raise ArgumentError(f"{shown(key)}.{error.name}", error.given, error.allowed) from None
        except ValueError as error:
            raise ArgumentError(shown(key), _printed(plain), str(error)) from None
    for field in dataclasses.fields(kind):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ArgumentError(field.name, "it is missing")
    return kind(**values)


def whole(least: int, most: float = math.inf) -> Reader:
    """An int within these bounds."""
    allowed = f"allowed are whole numbers from {least}" + f" to {most}" * (most < math.inf)

    def read(given: Any) -> int:
        if type(given) is int and least <= given <= most:
            return given
        raise ValueError(allowed)

    return read


def number(least: float, most: float, above: bool = False) -> Reader:
    """A finite float within these bounds; `above` the lower one."""
    allowed = f"allowed are numbers {'above' if above else 'from'} {least:g} to {most:g}"

    def read(given: Any) -> float:
        if (
            type(given) in (int, float)
            and least <= given <= most
            and not (above and given == least)
        ):
            return float(given)
        raise ValueError(allowed)

    return read


def one_of(*known: Any) -> Reader:
    """One of these values, of their type."""

    def read(given: Any) -> Any:
        if type(given) in map(type, known) and given in known:
            return given
        raise ValueError(f"allowed are {', '.join(map(str, known))}")

    return read


def text(given: Any) -> str:
    """A string."""
    if isinstance(given, str):
        return given
    raise ValueError("allowed is text")


def names(given: Any) -> tuple[str, ...]:
    """A list of strings."""
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return tuple(given)
    raise ValueError("allowed is a list of strings")


def _plain(given: Any) -> Any:
    """A number that isn't Python's, such as NumPy's, as Python's."""
    if isinstance(given, bool):
        return given
    try:
        return operator.index(given)
    except TypeError:
        return float(given) if isinstance(given, numbers.Real) else given


def _printed(given: Any) -> str:
    try:
        return reprlib.repr(given)
    except ValueError:  # Python writes no int of thousands of digits
        return "a number of thousands of digits"


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Where values of the same names differ, as "name ours, not theirs"."""
    return [
        f"{name} {_short(value)}, not {_short(theirs[name])}"
        for name, value in ours.items()
        if value != theirs[name]
    ]


def _short(value: object) -> str:
    """A hash is told from another by its beginning."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text or "none"
