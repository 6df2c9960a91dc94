"""From labels to images: the autoregressive loop, its random numbers, the model users load."""

from .load import load
from .pipeline import Pipeline
from .sample import sample_tokens

__all__ = ["Pipeline", "load", "sample_tokens"]
