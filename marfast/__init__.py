"""marfast: MAR image generation, several times faster, from the same weights and seeds.

Importing it imports neither torch nor anything of its own that does: a name's home is imported when
the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from marfast._version import __version__

if TYPE_CHECKING:
    from marfast import ops, reference
    from marfast.checkpoints import Settings
    from marfast.drop_in import accelerate, findings, restore
    from marfast.drop_in.edit import edit
    from marfast.drop_in.warmup import refresh, warmup
    from marfast.generation import Pipeline
    from marfast.generation.generated import save, to_pil
    from marfast.generation.load import load
    from marfast.ops.choice import backend
    from marfast.verifying import verify

__all__ = [
    "Pipeline",
    "Settings",
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
    "save",
    "to_pil",
    "verify",
    "warmup",
]

_HOMES = {
    "Pipeline": "generation",
    "Settings": "checkpoints",
    "accelerate": "drop_in",
    "backend": "ops.choice",
    "edit": "drop_in.edit",
    "findings": "drop_in",
    "load": "generation.load",
    "refresh": "drop_in.warmup",
    "restore": "drop_in",
    "save": "generation.generated",
    "to_pil": "generation.generated",
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
    dunders = {name for name in globals() if name.startswith("__")}
    return sorted({*dunders, *__all__, *_ROOMS})
