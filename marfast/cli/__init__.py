"""The command line: arguments, progress, tables. It does nothing that a Python caller couldn't."""

from marfast import startup

with startup.importing():
    from marfast.cli.app import main

__all__ = ["main"]
