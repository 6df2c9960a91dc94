"""Models: what they are (presets), how their files are read, and the thin model that runs them."""

from .checkpoint import CheckpointError
from .mar import FastMAR
from .presets import Architecture, Preset, Settings, embedded_models, get_preset

__all__ = [
    "Architecture",
    "CheckpointError",
    "FastMAR",
    "Preset",
    "Settings",
    "embedded_models",
    "get_preset",
]
