"""What turns latents into images and back: the protocol, and whether a tokenizer suits a model."""

from typing import Protocol

from torch import Tensor

from marfast.checkpoints import Architecture
from marfast.errors import ArgumentError


class Tokenizer(Protocol):
    """Four names that any tokenizer of continuous latents can have; docs/tokenizers.md shows how.

    Latents are MAR's tokens as they are, scaled as MAR was trained on them: a tokenizer's scale is
    its own business.
    """

    stride: int
    """Pixels along the side of a latent."""

    channels: int
    """Numbers in a latent: C."""

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [−1, 1] -> latents [B, C, H/stride, W/stride]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> images [B, 3, stride·h, stride·w], about in [−1, 1]."""


_METHODS = ("encode", "decode")
_NUMBERS = ("stride", "channels")


def check_tokenizer(tokenizer: Tokenizer, architecture: Architecture) -> None:
    """Raise TypeError unless this is a tokenizer, ArgumentError unless its latents are those of
    models of this architecture."""
    lacks = [name for name in _METHODS if not callable(getattr(tokenizer, name, None))]
    lacks += [name for name in _NUMBERS if not isinstance(getattr(tokenizer, name, None), int)]
    if lacks:
        names = ", ".join(_METHODS + _NUMBERS)
        raise TypeError(
            f"vae: {type(tokenizer).__name__} lacks {', '.join(lacks)}; a tokenizer has {names}"
        )
    for name, own in (
        ("stride", architecture.vae_stride),
        ("channels", architecture.vae_embed_dim),
    ):
        if (given := getattr(tokenizer, name)) != own:
            raise ArgumentError("vae", f"its {name} is {given}", f"this model's latents need {own}")
