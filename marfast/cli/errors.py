"""Bad input as the parser reports its own: one line that names the option, exit status 2."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from marfast.errors import ArgumentError, BackendUnavailable, is_out_of_memory

if TYPE_CHECKING:
    import torch

_VARIABLES = {"backend": "MARFAST_BACKEND", "MARFAST_CPU_ISA": "MARFAST_CPU_ISA"}
"""Arguments that a program's user gives by the environment."""


class Failed(Exception):
    """What ends a command though it is no bug: the machine has too little of something."""

    exit_code = 2

    def format_message(self) -> str:
        return str(self)


def bad(option: str, message: str) -> typer.BadParameter:
    """The error to raise for a bad value of an option; `message` says what is allowed."""
    return typer.BadParameter(message, param_hint=option)


@contextmanager
def reported_as(option: str, **names: str) -> Iterator[None]:
    """Turns an error inside the block into `bad`: an ArgumentError into that of the option of its
    name (num_iter is --num-iter, unless `names` has a command's own name for it), another
    ValueError or an OSError into that of this option."""
    try:
        yield
    except ArgumentError as error:
        usual = "--" + error.name.replace("_", "-")
        raise bad((_VARIABLES | names).get(error.name, usual), error.problem) from None
    except (ValueError, OSError) as error:
        if is_out_of_memory(error):
            raise
        raise bad(option, str(error)) from None


@contextmanager
def one_line() -> Iterator[None]:
    """Turns what no command has foreseen, and is still no bug, into an error of one line."""
    try:
        yield
    except BackendUnavailable as error:
        raise bad("MARFAST_BACKEND", str(error)) from None
    except (MemoryError, OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise Failed("out of memory") from None
        if isinstance(error, OSError):
            raise Failed(str(error)) from None
        raise


def check_environment() -> None:
    """The variables that choose a backend, before any work depends on them."""
    from marfast.ops import choice
    from marfast.ops.runtime import cpu

    forced: Any = os.environ.get("MARFAST_BACKEND") or "auto"
    with reported_as("MARFAST_BACKEND"), choice.backend(forced):
        cpu.is_built()


def check_device(device: str) -> "torch.device":
    """Whether it is one that models run on, and there is one here."""
    from marfast.generation.load import check_device as check_torch_device

    with reported_as("--device"):
        found = check_torch_device(device)
        if found.type not in ("cpu", "cuda") or (found.type == "cpu" and found.index):
            raise ArgumentError("device", repr(device), "allowed are cpu, cuda and cuda:N")
        return found
