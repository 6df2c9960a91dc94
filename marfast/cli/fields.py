"""Options of a command that are the fields of dataclasses, which say what they mean and check."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

Command = TypeVar("Command", bound=Callable[..., Any])
Meaning = Callable[[type], Mapping[str, str]]


def with_fields_of(
    *kinds: type, meaning: Meaning, defaults: Callable[[str, Any], str]
) -> Callable[[Command], Command]:
    """A command takes an option for each field, in its `**fields`; None is not given.

    meaning: of each field; `defaults` words a field's default.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        plain = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [option for kind in kinds for option in _options(kind, meaning(kind), defaults)]
        command.__signature__ = inspect.Signature([*plain, *options])  # type: ignore[attr-defined]
        return command

    return decorate


def _options(
    kind: type, meaning: Mapping[str, str], defaults: Callable[[str, Any], str]
) -> list[inspect.Parameter]:
    hints = get_type_hints(kind)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _given_as(hints[field.name]),
                typer.Option(
                    help=meaning[field.name] + defaults(field.name, field.default),
                    metavar=_metavar(hints[field.name]),
                ),
            ],
        )
        for field in dataclasses.fields(kind)
    ]


def _plain(hint: Any) -> Any:
    """Of X or X | None."""
    if get_origin(hint) in (Union, types.UnionType):
        [hint] = [kind for kind in get_args(hint) if kind is not type(None)]
    return hint


def _given_as(hint: Any) -> Any:
    """On a command line: several of an option where the field is a tuple."""
    hint = _plain(hint)
    return (list[get_args(hint)[0]] if get_origin(hint) is tuple else hint) | None  # type: ignore[misc]


def _metavar(hint: Any) -> str | None:
    hint = _plain(hint)
    if get_origin(hint) is Literal or hint is bool:
        return None
    return "N" if hint is int else "X"
