"""Parsers of options' values whose errors say what was given and what is allowed."""

import math
import re
from collections.abc import Callable

import typer


def whole(least: int, most: int | None = None) -> Callable[[object], int]:
    """Parses whole numbers in a range."""
    allowed = f"from {least}" if most is None else f"from {least} to {most}"

    def parse(text: object) -> int:
        given = str(text).strip()
        value = int(given) if re.fullmatch(r"[+-]?[0-9]{1,19}", given) else least - 1
        if value < least or (most is not None and value > most):
            raise typer.BadParameter(f"{text!r}; allowed are whole numbers {allowed}")
        return value

    return parse


def number(least: float) -> Callable[[object], float]:
    """Parses finite numbers from `least`."""

    def parse(text: object) -> float:
        try:
            value = float(str(text))
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise typer.BadParameter(f"{text!r}; allowed are numbers from {least:g}")
        return value

    return parse


def one_of(*allowed: str) -> Callable[[object], str]:
    """Parses one of some words."""

    def parse(text: object) -> str:
        if text not in allowed:
            raise typer.BadParameter(f"{text!r}; allowed are {', '.join(allowed)}")
        return str(text)

    return parse
