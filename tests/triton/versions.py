"""The triton that these tests know: they reach into its interpreter and its compiler."""

import importlib.util
from importlib.metadata import version

KNOWN = "3.6."


def why_not() -> str:
    """Why the tests can't run here; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton isn't installed"
    if not version("triton").startswith(KNOWN):
        return f"triton is {version('triton')}; the tests know {KNOWN}x"
    return ""
