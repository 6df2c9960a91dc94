"""From labels to images: the autoregressive loop, its random numbers, the model users load."""

from .load import load
from .loop import sample_tokens
from .pipeline import Pipeline

__all__ = ["Pipeline", "load", "sample_tokens"]
