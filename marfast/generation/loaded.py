"""A model that was loaded: what its tokens are, and how many images are made of them at a time."""

import torch
from torch import Tensor

from marfast import profiling
from marfast.checkpoints import Report, Settings
from marfast.model.mar import FastMAR
from marfast.model.restricted import is_sequence
from marfast.model.tokenizer import Tokenizer

PART_MEMORY = 1 << 30  # bytes of activations that one part of a batch may take, about
ACTIVATIONS = 16  # vectors of the transformer's width that are live for each position, about


class Loaded:
    """A model with its defaults and its tokenizer; `Pipeline` says of each what it is."""

    def __init__(
        self,
        model: FastMAR,
        settings: Settings,
        classes: tuple[str, ...] = (),
        report: Report | None = None,
        tokenizer: Tokenizer | None = None,
    ):
        self.model = model
        self.settings = settings
        self.classes = classes
        self.report = report
        self.tokenizer = tokenizer

    @property
    def makes_images(self) -> bool:
        """Whether `generate` returns images in [−1, 1], and neither a tokenizer's latents nor
        vectors: tokens are pixels, or there is a tokenizer."""
        module = self.model.module
        makes_pixels = bool(module.vae_stride == 1) and not is_sequence(module)
        return self.tokenizer is not None or makes_pixels

    @property
    def largest_part(self) -> int:
        """How many images are computed at a time unless told otherwise: what memory allows."""
        module = self.model.module
        width = max(module.decoder_pos_embed_learned.shape[2], module.encoder_norm.weight.shape[0])
        positions = module.seq_len + module.buffer_size
        image = 2 * positions * width * ACTIVATIONS * module.mask_token.element_size()
        return max(1, int(PART_MEMORY // image))

    @property
    def side(self) -> int:
        """Of what `generate` returns: pixels, or a tokenizer's latents."""
        module = self.model.module
        token = module.patch_size * (1 if self.tokenizer is None else self.tokenizer.stride)
        return int(module.seq_h * token)

    @property
    def channels(self) -> int:
        """Of what `generate` returns."""
        return 3 if self.tokenizer is not None else int(self.model.module.vae_embed_dim)

    @torch.no_grad()
    def images_of(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, C] -> what `generate` returns."""
        images: Tensor = self.model.module.unpatchify(tokens)
        if self.tokenizer is not None:
            with profiling.range("vae", len(images)):
                images = self.tokenizer.decode(images)
        return images.clamp(-1, 1) if self.makes_images else images

    @torch.no_grad()
    def encoded(self, images: Tensor) -> Tensor:
        """What `generate` returns -> pixels or latents, of which tokens are patches."""
        if self.tokenizer is None:
            return images
        with profiling.range("vae", len(images)):
            return self.tokenizer.encode(images).to(self.model.device)
