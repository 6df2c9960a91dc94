"""What the head's ops share: a head's sizes, read off its weights, and the packed form of those."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from marfast.ops import checks, native
from marfast.reference import head


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
def time_embedding(timesteps: tuple[float, ...], frequencies: int) -> Tensor:
    """The reference's sinusoids [S, frequencies], on the CPU whatever the caller's defaults are."""
    with torch.device("cpu"), native.torch_after_fork():
        t = torch.tensor(timesteps, dtype=torch.float32)
        embedding: Tensor = head.timestep_embedding(t, frequencies)
    return embedding


@functools.lru_cache(maxsize=16)
def _rates(half: int, device: torch.device) -> Tensor:
    with torch.device("cpu"):
        return head.angular_rates(half).to(device)


def device_time_embedding(t: Tensor, frequencies: int) -> Tensor:
    """The reference's sinusoids of t, computed where t is: after the first call on a device nothing
    is copied from the host, so that a graph captures it."""
    return head.sinusoids(t, _rates(frequencies // 2, t.device), frequencies)


def pack_head(weights: Sequence[Tensor], backend: str = "cpu") -> Tensor:
    """A head's weights as a backend's `ddpm_sample` reads them: opaque, tied to these values.

    Args:
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order: float32 or bfloat16, or
            float16, which is packed as float32.
        backend: "cpu", the only one of this version that packs.

    Returns:
        [size] float32, whatever it holds. Packing copies every weight once: do it once for many
        calls.

    Raises:
        TypeError, ValueError: weights that are not a head's, or an unknown backend.
        ImportError: the native extension is missing.
    """
    if backend != "cpu":
        raise ValueError(f"backend: {backend!r}; allowed is 'cpu'")
    shape = HeadShape.of(weights)
    dtype, device = weights[0].dtype, weights[0].device
    if dtype not in native.WEIGHTS or device.type != "cpu":
        names = " or ".join(map(checks.short_dtype, native.WEIGHTS))
        given = f"{checks.short_dtype(dtype)} on {device}"
        raise TypeError(f"weights are {given}; the CPU's kernels take {names} on the CPU")
    dense = [weight.detach().contiguous() for weight in weights]
    extension = native.extension()
    code = native.packed_code(dtype)
    packed = native.empty(extension.packed_head_size(shape, code))
    pointers = [weight.data_ptr() for weight in dense]
    extension.pack_head(shape, code, native.DTYPE_CODES[dtype], pointers, packed.data_ptr())
    return packed


def packed_head(weights: Sequence[Tensor], shape: HeadShape, packed: Tensor | None) -> Tensor:
    """`packed`, checked to be of these weights' size; packed here where it is None."""
    if packed is None:
        return pack_head(weights)
    code = native.packed_code(weights[0].dtype)
    if packed.shape != (native.extension().packed_head_size(shape, code),):
        raise ValueError("packed: it is not what ops.pack_head returns for these weights")
    return packed


def example_weights(
    shape: HeadShape, dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> list[Tensor]:
    """Random weights of a head of these sizes, which keep activations near 1."""

    def draw(*sizes: int) -> Tensor:
        drawn = torch.randn(sizes, generator=generator, device=generator.device)
        return (drawn * math.sqrt(1 / sizes[-1])).to(device, dtype)

    return [draw(*sizes) for sizes in shape.expected()]
