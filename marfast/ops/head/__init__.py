"""What the head's ops share: its sizes, read off its weights, and its options."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES
from marfast.reference.diffusion import HeadOptions


class HeadShape(NamedTuple):
    """A SimpleMLPAdaLN's sizes."""

    channels: int
    condition: int
    width: int
    depth: int
    frequencies: int

    @classmethod
    def of(cls, weights: Sequence[Tensor]) -> "HeadShape":
        """The sizes of weights in the order of a `SimpleMLPAdaLN`'s state_dict.

        Raises ValueError or TypeError naming the entry that doesn't fit.
        """
        blocks, rest = divmod(len(weights) - 12, 8)
        if blocks < 0 or rest:
            raise ValueError(
                f"weights has {len(weights)} tensors; a head of d blocks has 12 + 8 d: "
                "the values of its state_dict, in order"
            )
        dtypes = (*DTYPES, torch.float64)
        inputs = {
            place: checks.first(f"weights[{place}]", weights[place], "outputs, inputs", dtypes)[1]
            for place in (0, 4, 6)
        }
        shape = cls(inputs[6], inputs[4], weights[0].shape[0], blocks, inputs[0])
        if min(shape._replace(depth=1)) < 1:
            raise ValueError(f"weights are a head's of sizes {shape}; allowed are sizes from 1")
        like, own = weights[0], (weights[0].dtype,)
        for place, (weight, sizes) in enumerate(zip(weights, shape.expected(), strict=True)):
            letters = "outputs, inputs" if len(sizes) == 2 else "outputs"
            checks.like(f"weights[{place}]", weight, letters, sizes, own, like, "weights[0]")
        return shape

    def expected(self) -> list[tuple[int, ...]]:
        """The shape of each weight."""

        def linear(inputs: int, outputs: int) -> list[tuple[int, ...]]:
            return [(outputs, inputs), (outputs,)]

        c, z, w, d, f = self
        before = linear(f, w) + linear(w, w) + linear(z, w) + linear(c, w)
        block = [(w,), (w,), *linear(w, w), *linear(w, w), *linear(w, 3 * w)]
        return before + block * d + linear(w, 2 * c) + linear(w, 2 * w)


def options_of(a: Args, guided: bool = False) -> HeadOptions:
    """The options that an op states, from its arguments; the others as they are by default."""
    return HeadOptions(guided=guided, **{name: getattr(a, name) for name in _stated(a._fields)})


@functools.cache
def _stated(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name in HeadOptions._fields)
