"""Files of weights: known models (presets), what a file holds, how it is read and converted."""

from marfast.errors import CheckpointError

from .checkpoint import Checkpoint, find
from .conversion import Conversion, convert
from .presets import Architecture, Preset, Settings, embedded_models, get_preset
from .report import Report, inspect

__all__ = [
    "Architecture",
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "Preset",
    "Report",
    "Settings",
    "convert",
    "embedded_models",
    "find",
    "get_preset",
    "inspect",
]
