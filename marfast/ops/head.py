"""What the head's ops share: a head's sizes, read off its weights, and the packed form of those."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from marfast.ops import checks, native


class HeadShape(NamedTuple):
    """A SimpleMLPAdaLN's sizes, in the order of csrc/include/marfast/ops.h's HeadShape."""

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
        dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        inputs = {
            place: checks.first(f"weights[{place}]", weights[place], "outputs, inputs", dtypes)[1]
            for place in (0, 4, 6)
        }
        shape = cls(inputs[6], inputs[4], weights[0].shape[0], blocks, inputs[0])
        if min(shape._replace(depth=1)) < 1:
            raise ValueError(f"weights are a head's of sizes {shape}; allowed are sizes from 1")
        for place, (weight, sizes) in enumerate(zip(weights, shape.expected(), strict=True)):
            letters = "outputs, inputs" if len(sizes) == 2 else "outputs"
            checks.like(
                *(f"weights[{place}]", weight, letters, sizes, (weights[0].dtype,), weights[0]),
                reference="weights[0]",
            )
        return shape

    def expected(self) -> list[tuple[int, ...]]:
        """The shape of each weight."""

        def linear(inputs: int, outputs: int) -> list[tuple[int, ...]]:
            return [(outputs, inputs), (outputs,)]

        c, z, w, d, f = self
        block = [(w,), (w,), *linear(w, w), *linear(w, w), *linear(w, 3 * w)]
        return [
            *(*linear(f, w), *linear(w, w), *linear(z, w), *linear(c, w)),
            *(block * d),
            *(*linear(w, 2 * c), *linear(w, 2 * w)),
        ]


@functools.lru_cache(maxsize=16)
def time_embedding(timesteps: tuple[int, ...], frequencies: int) -> Tensor:
    """`reference.head.timestep_embedding` -> [S, frequencies], on the CPU, with the same bits on
    every machine: arguments in float32 as there, exp, cos and sin in float64, rounded once."""
    half = frequencies // 2
    exponents = np.float32(-np.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half)
    inverse_periods = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = np.asarray(timesteps, dtype=np.float32)[:, None] * inverse_periods
    embedding = np.zeros((len(timesteps), frequencies), dtype=np.float32)
    embedding[:, :half] = np.cos(angles.astype(np.float64))
    embedding[:, half : 2 * half] = np.sin(angles.astype(np.float64))
    return torch.from_numpy(embedding)


def pack_head(weights: Sequence[Tensor], backend: str = "cpu") -> Tensor:
    """A head's weights as a backend's `ddpm_sample` reads them: opaque, tied to these values.

    Args:
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order.
        backend: "cpu", the only one of this version that packs.

    Returns:
        [size] float32. Packing copies every weight once: do it once for many calls.

    Raises:
        TypeError, ValueError: weights that are not a head's, or an unknown backend.
        ImportError: the native extension is missing.
    """
    if backend != "cpu":
        raise ValueError(f"backend: {backend!r}; allowed is 'cpu'")
    shape = HeadShape.of(weights)
    if weights[0].dtype != torch.float32 or weights[0].device.type != "cpu":
        given = f"{checks.short_dtype(weights[0].dtype)} on {weights[0].device}"
        raise TypeError(f"weights are {given}; the CPU's kernels take float32 on the CPU")
    dense = [weight.detach().contiguous() for weight in weights]
    extension = native.extension()
    packed = native.empty(extension.packed_head_size(shape))
    extension.pack_head(shape, [weight.data_ptr() for weight in dense], packed.data_ptr())
    return packed
