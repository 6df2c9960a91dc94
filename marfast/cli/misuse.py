"""What the parser finds wrong, in this program's words: the argument, what was given, what is
allowed. Where another version of typer tells less of an error, its own words stay."""

import re
from typing import Any, get_args

_NUMBERS = {int: "whole numbers", float: "numbers"}


def worded(error: Any) -> str:
    """One line on an error that the parser raised, or a command as one of the parser's."""
    told = _WORDS.get(type(error).__name__, _usage)(error) or error.format_message()
    return " ".join(told.splitlines())


def _bad(error: Any) -> str:
    if error.param_hint is None and error.param is not None:
        found: list[Any] = getattr(error.__cause__, "errors", list)()
        allowed = _allowed(error.param)
        if found and allowed:
            return f"{_name(error)}: {found[0]['input']!r}; allowed are {allowed}"
    return f"{_name(error)}: {error.message}"


def _missing(error: Any) -> str:
    return f"{_name(error)}: not given; {_command(error)} needs it"


def _unknown(error: Any) -> str:
    similar = ", ".join(error.possibilities or ())
    told = f"{error.option_name}: {_command(error)} has no such option"
    return told + (f"; similar are {similar}" if similar else "")


def _without_value(error: Any) -> str:
    takes = "does not take" not in error.message
    return f"{error.option_name}: " + ("no value; it takes one" if takes else "it takes no value")


def _usage(error: Any) -> str:
    said = error.format_message()
    if extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", said):
        return f"{extra[1]}: {_command(error)} takes no more arguments"
    unknown = re.match(r"No such command ('.*?')\.", said)
    if unknown or said == "Missing command.":
        commands = ", ".join(error.ctx.command.list_commands(error.ctx))
        given = f"{unknown[1]} is no command" if unknown else "no command"
        return f"{given}; allowed are {commands}"
    return ""


_WORDS = {
    "BadParameter": _bad,
    "MissingParameter": _missing,
    "NoSuchOption": _unknown,
    "BadOptionUsage": _without_value,
}
"""By the names of classes, which lie elsewhere in each version of typer."""


def _command(error: Any) -> str:
    return str(error.ctx.info_name) if error.ctx is not None else "it"


def _name(error: Any) -> str:
    """The argument's, as it is typed; a positional one's as help shows it."""
    if error.param_hint is not None:
        return str(error.param_hint)
    options = [option for option in error.param.opts if option.startswith("-")]
    return " / ".join(options) or str(error.param.metavar or error.param.name.upper())


def _allowed(param: Any) -> str:
    """As a parameter declares it; empty where that isn't known."""
    declared = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if declared not in _NUMBERS:
        return ", ".join(map(str, get_args(declared)))
    low, high = getattr(param, "min", None), getattr(param, "max", None)
    bounds = [
        f"{word} {bound}" for word, bound in (("from", low), ("to", high)) if bound is not None
    ]
    return " ".join([_NUMBERS[declared], *bounds])
