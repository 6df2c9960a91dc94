"""What is known before the first iteration: the tokens of an edit, and its iterations."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from marfast.checkpoints import Settings


@dataclass(frozen=True)
class Start:
    """Tokens [B, L, C], of which `unknown` [B, L] (bool) are to be made: M = `count` in each image,
    as the encoder takes equally many known tokens of each."""

    tokens: Tensor
    unknown: Tensor
    count: int

    def order(self, orders: Tensor) -> Tensor:
        """Orders [B, L] with the unknown tokens first; both kinds keep their own order."""
        known = ~self.unknown.to(orders.device).gather(1, orders)
        return orders.gather(1, known.int().argsort(dim=1, stable=True))

    def settings(self, settings: Settings, num_iter: int | None) -> Settings:
        """Those of an edit: `num_iter` iterations, but at most one a token; None takes the
        settings' own in proportion to the unknown tokens, so that time follows them."""
        whole = self.unknown.shape[1]
        share = -(-settings.num_iter * self.count // whole)
        own = share if num_iter is None else min(num_iter, self.count)
        return dataclasses.replace(settings, num_iter=own)

    def __getitem__(self, images: slice) -> "Start":
        return Start(self.tokens[images], self.unknown[images], self.count)


def groups(tokens: Tensor, unknown: Tensor) -> Iterator[tuple[list[int], Start]]:
    """The images with equally many unknown tokens, by their first image; none without any. tokens
    [B, L, C], unknown [B, L]."""
    counts: list[int] = unknown.sum(dim=1).tolist()
    for count in dict.fromkeys(counts):
        if count:
            images = [i for i, found in enumerate(counts) if found == count]
            yield images, Start(tokens[images], unknown[images], count)
