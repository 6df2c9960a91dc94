"""Training MAR models: data, the run, checkpoints that it goes on from exactly.

Importing it imports no torch: a name's home is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marfast.training.caching import cache
    from marfast.training.data import open_data
    from marfast.training.settings import RECIPES, Session, TrainSettings, recipe
    from marfast.training.training import Outcome, train

__all__ = [
    "RECIPES",
    "Outcome",
    "Session",
    "TrainSettings",
    "cache",
    "open_data",
    "recipe",
    "train",
]

_HOMES = {
    "RECIPES": "settings",
    "Outcome": "training",
    "Session": "settings",
    "TrainSettings": "settings",
    "cache": "caching",
    "open_data": "data",
    "recipe": "settings",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(import_module(f"marfast.training.{_HOMES[name]}"), name)
        return globals().setdefault(name, found)
    raise AttributeError(f"module 'marfast.training' has no attribute {name!r}")
