"""From a module to what the ops take: its weights and, kept current, their packed forms."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from marfast.ops import choice
from marfast.ops.runtime import cpu

SAMPLES = 64
"""How many values of each weight are looked at, at least."""


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """torch.autocast to half precision, or for float32 out of one that is in force; None changes
    nothing."""
    if dtype is None:
        return nullcontext()
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype if half else None, half, cache_enabled=False)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What products of such a weight are computed in: autocast's dtype inside it, else its own."""
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def in_float32(weight: Tensor, dtype: torch.dtype | None) -> bool:
    """Whether such a weight's products are computed in float32 where `dtype` is asked for."""
    with autocast(weight.device, dtype):
        return compute_dtype(weight) == torch.float32


def cpu_kernels_take(weight: Tensor) -> bool:
    """Whether the CPU's kernels would run on weights such as this one, here and now."""
    chosen = choice.forced() in ("auto", "cpu")
    return chosen and not cpu.why_not(weight)


def ops_take(weight: Tensor) -> bool:
    """Whether a transformer's block with such weights is to run by the ops, here and now: where the
    CPU's kernels would, where another backend is forced, and on a GPU, by whichever backend: what
    they read is cast once, where the block's own code under autocast casts it in each iteration."""
    forced, on_gpu = choice.forced(), weight.device.type == "cuda"
    another = forced not in ("auto", "cpu", "reference")
    return another or (on_gpu and forced == "auto") or cpu_kernels_take(weight)


Fingerprint = tuple[object, ...]


def _fingerprint(weights: Sequence[Tensor]) -> Fingerprint:
    """Changes when a weight does: replaced, written in place, or (on a CPU, sparsely checked) via
    `.data`."""
    # what is made in inference mode counts no versions
    places = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
    if weights[0].device.type != "cpu":  # nobody waits for a device: `marfast.refresh`
        return tuple(places)
    sampled = [w.detach().flatten()[:: max(1, w.numel() // SAMPLES)] for w in weights]
    return (*places, *torch.cat(sampled).tolist())


class Packed(NamedTuple):
    """Weights in the dtype that they are computed in, and what `pack` made of them: None where no
    kernel would read it."""

    weights: list[Tensor]
    packed: Tensor | None


class Packing:
    """Packed forms of some weights, one for each dtype that they are computed in; made anew when
    the weights have changed."""

    def __init__(self, pack: Callable[[Sequence[Tensor]], Tensor]):
        self._pack = pack
        self._made: tuple[Fingerprint, dict[object, Packed]] = ((), {})

    def of(
        self,
        weights: Sequence[Tensor],
        joined: Callable[[Sequence[Tensor]], list[Tensor]] = list,
    ) -> Packed:
        """To be asked for once in each generation. `joined` makes what is packed of the weights."""
        dtype, by_cpu = compute_dtype(weights[0]), cpu_kernels_take(weights[0])
        if forward_ad._current_level >= 0:  # with their tangents, which no version counts
            return Packed(joined([w.to(dtype) for w in weights]), None)
        if dtype == weights[0].dtype and not by_cpu and joined is list:
            return Packed([*weights], None)
        now = _fingerprint(weights)
        made_from, made = self._made
        if made_from != now:
            made = {}
            self._made = now, made  # at once: other threads read it
        if (found := made.get((dtype, by_cpu))) is None:
            cast = joined([w.detach().to(dtype) for w in weights])
            found = Packed(cast, self._pack(cast) if by_cpu else None)
            made[dtype, by_cpu] = found
        return found
