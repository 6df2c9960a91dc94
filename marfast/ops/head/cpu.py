"""A head's weights as the CPU's kernels read them, and its timesteps."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops.head import HeadShape
from marfast.ops.runtime import DTYPES, check_memory, cpu, short_dtype
from marfast.reference.timesteps import timestep_embedding


@functools.lru_cache(maxsize=16)
def time_embedding(timesteps: tuple[float, ...], frequencies: int) -> Tensor:
    """The reference's sinusoids [S, frequencies]."""
    t = torch.tensor(timesteps, dtype=torch.float32, device="cpu")
    return timestep_embedding(t, frequencies)


def pack_head(weights: Sequence[Tensor], backend: str = "cpu", spec: str = "") -> Tensor:
    """A head's weights as a backend's `ddpm_sample` reads them: opaque, tied to these values.

    Args:
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order: float32 or bfloat16, or
            float16, which is packed as float32.
        backend: "cpu", the only one of this version that packs.
        spec: of the head, as the ops take it.

    Returns:
        [size] float32, whatever it holds. Packing copies every weight once: do it once for many
        calls.

    Raises:
        TypeError, ValueError: weights that are not a head's, or an unknown backend.
        ImportError: the native extension is missing.
    """
    if backend != "cpu":
        raise ArgumentError("backend", repr(backend), "allowed is 'cpu'")
    if spec:
        raise ArgumentError("spec", f"{spec!r}; the CPU's kernels take MAR's head")
    shape = HeadShape.of(weights)
    dtype, device = weights[0].dtype, weights[0].device
    if dtype not in DTYPES or device.type != "cpu":
        names = " or ".join(map(short_dtype, DTYPES))
        given = f"{short_dtype(dtype)} on {device}"
        raise TypeError(f"weights are {given}; the CPU's kernels take {names} on the CPU")
    check_memory(weights=[*weights])
    dense = [cpu.packable(weight) for weight in weights]
    extension, own = cpu.extension(), cpu.packed_dtype(dtype)
    packed = cpu.empty(extension.packed_head_size(shape=shape, dtype=own))
    extension.pack_head(shape=shape, dtype=own, weights=dense, packed=packed)
    return packed


def packed_head(weights: Sequence[Tensor], shape: HeadShape, packed: Tensor | None) -> Tensor:
    """`packed`, checked to be of these weights' size; packed here where it is None."""
    if packed is None:
        return pack_head(weights)
    own = cpu.packed_dtype(weights[0].dtype)
    if packed.shape != (cpu.extension().packed_head_size(shape=shape, dtype=own),):
        raise ArgumentError("packed", "it is not what ops.pack_head returns for these weights")
    return packed
