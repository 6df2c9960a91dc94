"""From labels to images: the autoregressive loop, its random numbers, the model users load."""

from marfast.generation.pipeline import Pipeline
from marfast.generation.sample import sample_tokens

__all__ = ["Pipeline", "sample_tokens"]
