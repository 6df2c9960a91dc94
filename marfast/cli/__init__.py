"""The command line: arguments, progress, tables. It does nothing that a Python caller couldn't."""

from marfast.cli.app import main

__all__ = ["main"]
