"""A head's weights as the CPU's kernels read them, and its timesteps."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.ops.head import HeadShape
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, check_memory, cpu, short_dtype
from marfast.reference.head_spec import HeadSpec
from marfast.reference.timesteps import timestep_embedding


def time_embedding(timesteps: Tensor, frequencies: int, spec: HeadSpec) -> Tensor:
    """The reference's sinusoids of t [S], or [S, times] -> [times, S, frequencies]."""
    told = timesteps if spec.time_scale == 1.0 else timesteps * spec.time_scale
    by_time = told.reshape(len(told), spec.times).t().flatten().tolist()
    return _sinusoids(tuple(by_time), frequencies).view(spec.times, len(told), frequencies)


@functools.lru_cache(maxsize=16)
def _sinusoids(timesteps: tuple[float, ...], frequencies: int) -> Tensor:
    t = torch.tensor(timesteps, dtype=torch.float32, device="cpu")
    return timestep_embedding(t, frequencies)


def pack_head(weights: Sequence[Tensor], backend: str = "cpu", spec: str = "") -> Tensor:
    """A head's weights as a backend's `ddpm_sample` reads them: opaque, tied to these values.

    Args:
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order, or those of a
            `reference.Head` of the spec: float32 or bfloat16, or float16, which is packed as
            float32.
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
    choices = HeadSpec.of(spec)
    shape = HeadShape.of(weights, choices)
    dtype, device = weights[0].dtype, weights[0].device
    if dtype not in DTYPES or device.type != "cpu":
        names = " or ".join(map(short_dtype, DTYPES))
        given = f"{short_dtype(dtype)} on {device}"
        raise TypeError(f"weights are {given}; the CPU's kernels take {names} on the CPU")
    check_memory(weights=[*weights])
    dense = [cpu.packable(weight) for weight in weights]
    extension, own = cpu.extension(), cpu.packed_dtype(dtype)
    sizes = {"shape": shape, "spec": choices, "dtype": own}
    packed = cpu.empty(extension.packed_head_size(**sizes))
    extension.pack_head(**sizes, weights=dense, packed=packed)
    return packed


def packed_head(a: Args, shape: HeadShape, spec: HeadSpec) -> Tensor:
    """An op's `packed`, checked to be of its weights' size; packed here where it is None."""
    if a.packed is None:
        return pack_head(a.weights, spec=a.spec)
    own = cpu.packed_dtype(a.weights[0].dtype)
    size = cpu.extension().packed_head_size(shape=shape, spec=spec, dtype=own)
    if a.packed.shape != (size,):
        raise ArgumentError("packed", "it is not what ops.pack_head returns for these weights")
    packed: Tensor = a.packed
    return packed
