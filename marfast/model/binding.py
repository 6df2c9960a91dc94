"""From a module to what the ops take: its weights and, kept current, their packed forms."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.ops import native, registry

SAMPLES = 64
"""How many values of each weight the checksum reads."""


def native_kernels_take(weight: Tensor) -> bool:
    """Whether the CPU's kernels would run on weights such as this one, here and now."""
    return registry.forced() in ("auto", "cpu") and native.can_run({"weight": weight})[0]


def _fingerprint(weights: Sequence[Tensor]) -> tuple[object, ...]:
    """Changes when a weight does: replaced, written in place, or (sparsely checked) via `.data`."""
    sampled = [
        w.detach().flatten()[:: max(1, w.numel() // SAMPLES)].double().sum() for w in weights
    ]
    # what is made in inference mode counts no versions
    places = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
    return (*places, *torch.stack(sampled).tolist())


class Packing:
    """A packed form of some weights, made anew when they have changed."""

    def __init__(self, pack: Callable[[Sequence[Tensor]], Tensor]):
        self._pack = pack
        self._packed: Tensor | None = None
        self._made_from: tuple[object, ...] = ()

    def of(self, weights: Sequence[Tensor]) -> Tensor | None:
        """None where no kernel would read it."""
        if not native_kernels_take(weights[0]):
            return None
        fingerprint = _fingerprint(weights)
        if fingerprint != self._made_from:
            self._packed, self._made_from = self._pack(weights), fingerprint
        return self._packed


class HeadWeights(NamedTuple):
    """What `ops.ddpm_sample` takes of a head; `packed` is None where no kernel would read it."""

    weights: list[Tensor]
    packed: Tensor | None


class HeadBinding:
    """The weights of a SimpleMLPAdaLN."""

    def __init__(self) -> None:
        self._packing = Packing(ops.pack_head)

    def current(self, net: nn.Module) -> HeadWeights:
        """The net's weights as they are now. To be asked for once in each generation."""
        weights: list[Tensor] = [*net.parameters()]
        return HeadWeights(weights, self._packing.of(weights))
