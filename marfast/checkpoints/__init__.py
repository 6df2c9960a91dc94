"""Files of weights: known models (presets), what a file holds, how it is read and converted."""

from marfast.checkpoints.checkpoint import Checkpoint, find
from marfast.checkpoints.conversion import Conversion, convert
from marfast.checkpoints.presets import Architecture, Preset, embedded_models, get_preset
from marfast.checkpoints.report import Report, inspect
from marfast.checkpoints.settings import Settings
from marfast.errors import CheckpointError

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
