"""The phase after the last iteration: latents become images, by a KL-16's decoder."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from marfast.bench.images import Phases
from marfast.bench.measure import require
from marfast.bench.timing import seconds
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
        self.runs: dict[str, Callable[[], Phases]] = {
            who: partial(_timed, self._own if around is None else partial(self._by_module, around))
            for who, around in arounds.items()
        }

    def _own(self) -> Tensor:
        return self.tokenizer.decode(self.latents)

    def _by_module(self, around: Around) -> Tensor:
        with around():
            decoded: Tensor = self.module.decode(self.latents / self.tokenizer.scale)
        return decoded

    def verify(self, case: str) -> float:
        """How far the package's images are from the reference's; WrongResult if too far."""
        expected = self._by_module(nullcontext)
        off = float((self._own() - expected).abs().max() / expected.abs().max())
        require(f"{case}, VAE", off, TOLERANCE)
        return off

    def flops(self) -> float:
        """What the package's decoder computes."""
        from torch.utils.flop_counter import FlopCounterMode  # and Triton with it

        with FlopCounterMode(display=False) as counted:
            self._own()
        return float(counted.get_total_flops())

    def weights(self) -> int:
        """How many numbers it reads."""
        parts = (self.module.post_quant_conv, self.module.decoder)
        return sum(p.numel() for part in parts for p in part.parameters())


def _timed(decode: Callable[[], Tensor]) -> Phases:
    return {"vae": seconds(decode)}
