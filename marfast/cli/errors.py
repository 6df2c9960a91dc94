"""Bad input as the parser reports its own: one line that names the option, exit status 2."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from marfast.ops import choice
from marfast.ops.runtime import cpu

_ARGUMENTS = ("model", "preset", "weights", "vae", "dtype")
_SETTINGS = ("num_iter", "steps", "cfg", "cfg_schedule", "temperature")
_OPTIONS = {name: "--" + name.replace("_", "-") for name in (*_ARGUMENTS, *_SETTINGS)}
_VARIABLES = {"backend": "MARFAST_BACKEND", "MARFAST_CPU_ISA": "MARFAST_CPU_ISA"}
_NAMES = _OPTIONS | _VARIABLES
"""What the package's errors begin with, and what its user gave."""


def bad(option: str, message: str) -> typer.BadParameter:
    """The error to raise for a bad value of an option; `message` says what is allowed."""
    return typer.BadParameter(message, param_hint=f"'{option}'")


@contextmanager
def reported_as(option: str, **names: str) -> Iterator[None]:
    """Turns a ValueError or OSError inside the block into `bad`: of the option that the message
    names ("num_iter: 0; …"), or else of this one. `names` are a command's own names for it."""
    known = _NAMES | names
    try:
        yield
    except (ValueError, OSError) as error:
        name, _, rest = str(error).partition(": ")
        if name in known:
            raise bad(known[name], rest) from None
        raise bad(option, str(error)) from None


def check_environment() -> None:
    """The variables that choose a backend, before any work depends on them."""
    forced = os.environ.get("MARFAST_BACKEND") or "auto"
    with reported_as("MARFAST_BACKEND"), choice.backend(forced):
        cpu.is_built()
