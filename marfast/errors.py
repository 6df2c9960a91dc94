"""The package's errors that callers tell apart by type, not by their text."""

import errno
import math
import operator
import reprlib
from collections.abc import Iterable
from typing import Any


class ArgumentError(ValueError):
    """An argument that is not allowed.

    Attributes:
        name: the argument's, as a Python caller writes it.
        given: what was given, or what is wrong with it.
        allowed: what would be allowed: "allowed are 1 to 49"; may be empty.
    """

    def __init__(self, name: str, given: object, allowed: str = "") -> None:
        super().__init__(name, given, allowed)
        self.name, self.given, self.allowed = name, given, allowed

    @property
    def problem(self) -> str:
        """The message without the argument's name, for whoever calls it otherwise."""
        return f"{self.given}; {self.allowed}" if self.allowed else str(self.given)

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


def check_whole(
    name: str, given: Any, least: int, most: float = math.inf, allowed: str = ""
) -> int:
    """The whole number that an argument is, as Python's, NumPy's or torch's int of one element;
    ArgumentError unless it is one in this range, which `allowed` words."""
    try:
        if isinstance(given, bool) or "bool" in str(getattr(given, "dtype", "")):
            raise TypeError
        value = operator.index(given)
    except (TypeError, ValueError, RuntimeError):  # the last is torch's, of several elements
        value = None
    if value is None or not least <= value <= most:
        raise ArgumentError(name, repr(given), allowed or f"allowed are whole numbers from {least}")
    return value


class PathError(ArgumentError, OSError):
    """An argument that names a file or folder that can't be used."""


class MissingFile(PathError, FileNotFoundError):
    """An argument that names a file that is not there."""


class ExistingFile(PathError, FileExistsError):
    """An argument that names a file that is there, and isn't to be replaced."""


class BackendUnavailable(RuntimeError):
    """A forced backend can't run the op with these arguments."""


class CheckpointError(ValueError):
    """A file that can't be loaded; the message names the file and the key."""


_OUT_OF_MEMORY = (
    "allocate memory",  # the operating system's, and torch's allocators'
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "not enough memory",
    "failed to map segment",  # the dynamic loader's
    "failed to allocate",
    "start new thread",  # which takes memory, too
)
_OVERFLOW = ("size calculation overflowed", "multiplication overflow")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was what was missing: few libraries say so by the error's type."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return _says(error, _OUT_OF_MEMORY) or is_size_overflow(error)


def is_size_overflow(error: BaseException) -> bool:
    """Whether torch could not count the elements that it was to hold."""
    return _says(error, _OVERFLOW)


def _says(error: BaseException, words: Iterable[str]) -> bool:
    said = str(error).lower()
    return any(word in said for word in words)


def shown(name: object) -> str:
    """A name from a file, for one line of a message."""
    text = str(name) if isinstance(name, str | int) else type(name).__name__
    return text if text.isprintable() and len(text) <= 80 else reprlib.repr(text)
