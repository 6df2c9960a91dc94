"""Models: what they are (presets), how their files are read, and the thin model that runs them."""

from .checkpoint import CheckpointError
from .mar import FastMAR
from .presets import Architecture, Preset, Settings, embedded_models, get_preset
from .tokenizer import Tokenizer
from .vae import KLTokenizer, load_tokenizer

__all__ = [
    "Architecture",
    "CheckpointError",
    "FastMAR",
    "KLTokenizer",
    "Preset",
    "Settings",
    "Tokenizer",
    "embedded_models",
    "get_preset",
    "load_tokenizer",
]
