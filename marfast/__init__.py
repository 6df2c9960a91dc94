"""marfast: MAR image generation, several times faster, from the same weights and seeds.

Importing it imports neither torch nor anything of its own that does: a name's home is imported when
the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from marfast._version import __version__

if TYPE_CHECKING:
    from marfast import ops, reference
    from marfast.drop_in import accelerate, findings, restore
    from marfast.drop_in.edit import edit
    from marfast.drop_in.warmup import refresh, warmup
    from marfast.generation.load import load
    from marfast.ops.choice import backend
    from marfast.verifying import verify

__all__ = [
    "__version__",
    "accelerate",
    "backend",
    "edit",
    "findings",
    "load",
    "ops",
    "reference",
    "refresh",
    "restore",
    "verify",
    "warmup",
]

_HOMES = {
    "accelerate": "drop_in",
    "backend": "ops.choice",
    "edit": "drop_in.edit",
    "findings": "drop_in",
    "load": "generation.load",
    "refresh": "drop_in.warmup",
    "restore": "drop_in",
    "verify": "verifying",
    "warmup": "drop_in.warmup",
}
_ROOMS = (
    "bench",
    "checkpoints",
    "drop_in",
    "errors",
    "evaluation",
    "generation",
    "model",
    "ops",
    "profiling",
    "reference",
    "training",
    "verifying",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"marfast.{name}")
    if name in _HOMES:
        found = getattr(import_module(f"marfast.{_HOMES[name]}"), name)
        return globals().setdefault(name, found)
    raise AttributeError(f"module 'marfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
