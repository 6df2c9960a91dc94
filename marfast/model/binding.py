"""From a module to what the ops take: its weights in order, and their packed form, kept current."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.ops import native, registry

SAMPLES = 64
"""How many values of each weight the checksum reads."""


class HeadWeights(NamedTuple):
    """What `ops.ddpm_sample` takes of a head; `packed` is None where no kernel would read it."""

    weights: list[Tensor]
    packed: Tensor | None


def _fingerprint(weights: Sequence[Tensor]) -> tuple[object, ...]:
    """Changes when a weight does: replaced, written in place, or (sparsely checked) via `.data`."""
    sampled = [
        w.detach().flatten()[:: max(1, w.numel() // SAMPLES)].double().sum() for w in weights
    ]
    places = [(w.data_ptr(), w._version) for w in weights]
    return (*places, *torch.stack(sampled).tolist())


class HeadBinding:
    """The weights of a SimpleMLPAdaLN `net`, packed for the CPU's kernels while these can run."""

    def __init__(self, net: nn.Module):
        self.net = net
        self._packed: Tensor | None = None
        self._packed_from: tuple[object, ...] = ()

    def current(self) -> HeadWeights:
        """The weights as they are now. To be asked for once in each generation."""
        weights: list[Tensor] = [*self.net.parameters()]
        native_floats = weights[0].device.type == "cpu" and weights[0].dtype == torch.float32
        wanted = registry.forced() in ("auto", "cpu")
        if not (native_floats and wanted and native.available()[0]):
            return HeadWeights(weights, None)
        fingerprint = _fingerprint(weights)
        if fingerprint != self._packed_from:
            self._packed, self._packed_from = ops.pack_head(weights), fingerprint
        return HeadWeights(weights, self._packed)
