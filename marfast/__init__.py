"""marfast: MAR image generation, several times faster, from the same weights and seeds."""

from marfast import startup

with startup.importing():
    from marfast import ops, reference
    from marfast._version import __version__
    from marfast.drop_in import accelerate, findings, restore
    from marfast.drop_in.warmup import refresh, warmup
    from marfast.generation.load import load
    from marfast.ops.choice import backend
    from marfast.verifying import verify

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
