"""Files of weights: known models (presets), what a file holds, how it is read and converted."""

from .checkpoint import find_model
from .conversion import Conversion, convert
from .presets import Architecture, Preset, Settings, embedded_models, get_preset
from .read import CheckpointError
from .report import Report, inspect

__all__ = [
    "Architecture",
    "CheckpointError",
    "Conversion",
    "Preset",
    "Report",
    "Settings",
    "convert",
    "embedded_models",
    "find_model",
    "get_preset",
    "inspect",
]
