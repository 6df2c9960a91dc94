"""marfast: MAR image generation, several times faster, from the same weights and seeds."""

from marfast import ops, reference
from marfast._version import __version__
from marfast.accelerate import accelerate, findings, restore
from marfast.generation import load
from marfast.ops.choice import backend
from marfast.verify import verify
from marfast.warmup import refresh, warmup

__all__ = [
    "__version__",
    "accelerate",
    "backend",
    "findings",
    "load",
    "ops",
    "reference",
    "refresh",
    "restore",
    "verify",
    "warmup",
]
