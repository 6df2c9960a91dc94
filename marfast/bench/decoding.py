"""The phase after the last iteration: latents become images, by a KL-16's decoder."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from marfast.bench.measure import require
from marfast.model import KLTokenizer

TOLERANCE = 1e-4  # of the reference's largest value
Around = Callable[[], AbstractContextManager[Any]]


class Decoding:
    """Decoders of the same random latents: `runs`, by contender.

    arounds: of each contender, what stands round the reference's decoder, such as autocast; None
        for the package's own.
    """

    def __init__(
        self, tokenizer: KLTokenizer, arounds: Mapping[str, Around | None], batch: int, side: int
    ) -> None:
        generator = torch.Generator().manual_seed(batch)
        latents = torch.randn(batch, tokenizer.channels, side, side, generator=generator)
        self.latents = latents.to(next(tokenizer.module.parameters()).device)
        self.tokenizer = tokenizer
        self.module: Any = copy.deepcopy(tokenizer.module)
        self.module.to(memory_format=torch.contiguous_format)  # as the original lays it out
        own = partial(tokenizer.decode, self.latents)
        self.runs: dict[str, Callable[[], Tensor]] = {
            who: own if around is None else partial(self._by_module, around)
            for who, around in arounds.items()
        }

    def _by_module(self, around: Around) -> Tensor:
        with around():
            decoded: Tensor = self.module.decode(self.latents / self.tokenizer.scale)
        return decoded

    def verify(self, case: str) -> float:
        """How far the package's images are from the reference's; WrongResult if too far."""
        expected = self.runs["eager"]()
        found = self.tokenizer.decode(self.latents)
        off = float((found - expected).abs().max() / expected.abs().max())
        require(f"{case}, VAE", off, TOLERANCE)
        return off

    def flops(self) -> float:
        """What the package's decoder computes."""
        from torch.utils.flop_counter import FlopCounterMode  # and Triton with it

        with FlopCounterMode(display=False) as counted:
            self.tokenizer.decode(self.latents)
        return float(counted.get_total_flops())

    def weights(self) -> int:
        """How many numbers it reads."""
        parts = (self.module.post_quant_conv, self.module.decoder)
        return sum(p.numel() for part in parts for p in part.parameters())
