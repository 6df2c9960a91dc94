"""Sampling settings by their names in `checkpoints.Settings`: whatever it has can be set."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import typer

from marfast.checkpoints import Settings
from marfast.cli.errors import bad
from marfast.cli.options import interval_of

NAMES = tuple(field.name for field in fields(Settings))


def parse_set(given: Sequence[str] | None) -> dict[str, Any]:
    """Of `--set NAME=VALUE`."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, value = _parted("--set", text, NAMES)
        if name in found:
            raise bad("--set", f"{name} is given twice")
        found[name] = _value("--set", name, value)
    return found


def parse_vary(given: Sequence[str] | None) -> dict[str, list[Any]]:
    """Of `--vary NAME=VALUE,VALUE`; a value's own commas are written as slashes: steps=10/15/20,
    guidance_interval=0.1/0.7."""
    found: dict[str, list[Any]] = {}
    for text in given or ():
        name, values = _parted("--vary", text, (*NAMES, "dtype"))
        if name in found:
            raise bad("--vary", f"{name} is given twice")
        each = [value.replace("/", ",") for value in values.split(",")]
        found[name] = [_value("--vary", name, value) for value in each]
        for i, value in enumerate(found[name]):
            if value in found[name][:i]:
                raise bad("--vary", f"{text!r}; {value} is given twice")
    return found


def _parted(option: str, text: str, names: Sequence[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or name not in names:
        raise bad(option, f"{text!r}; allowed are NAME=VALUE, with {', '.join(names)}")
    return name, value.strip()


def _value(option: str, name: str, text: str) -> Any:
    """An interval where that is the setting, else a number or a truth value where it is one, else
    the text itself."""
    if name == "guidance_interval":
        try:
            return interval_of(text)
        except typer.BadParameter as error:
            raise bad(option, f"{name}: {error.message}") from None
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float)) else text
