"""The package's errors that callers tell apart by type, not by their text."""

import math


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
    name: str, given: object, least: int, most: float = math.inf, allowed: str = ""
) -> None:
    """Raise ArgumentError unless an argument is a whole number in a range; `allowed` words it."""
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise ArgumentError(name, repr(given), allowed or f"allowed are whole numbers from {least}")
