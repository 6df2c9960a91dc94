"""Bad input as the parser reports its own: one line that names the option, exit status 2."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import typer

from marfast.errors import ArgumentError
from marfast.ops import choice
from marfast.ops.runtime import cpu

_VARIABLES = {"backend": "MARFAST_BACKEND", "MARFAST_CPU_ISA": "MARFAST_CPU_ISA"}
"""Arguments that a program's user gives by the environment."""


def bad(option: str, message: str) -> typer.BadParameter:
    """The error to raise for a bad value of an option; `message` says what is allowed."""
    return typer.BadParameter(message, param_hint=f"'{option}'")


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
        raise bad(option, str(error)) from None


def check_environment() -> None:
    """The variables that choose a backend, before any work depends on them."""
    forced = os.environ.get("MARFAST_BACKEND") or "auto"
    with reported_as("MARFAST_BACKEND"), choice.backend(forced):
        cpu.is_built()


def check_device(device: str) -> None:
    """Whether it is one that models run on, and there is one here."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise bad("--device", f"{device!r}; allowed are cpu, cuda and cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise bad("--device", f"{device}: there is no CUDA device here")
