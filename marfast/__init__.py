"""marfast: MAR image generation, several times faster, from the same weights and seeds."""

from marfast import ops, reference
from marfast._version import __version__
from marfast.generation import load
from marfast.ops.registry import backend

__all__ = ["__version__", "backend", "load", "ops", "reference"]
