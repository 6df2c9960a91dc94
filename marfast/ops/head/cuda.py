"""The head's launches by csrc/cuda.

Its products are our own kernels, whose rows' bits depend on no batch; or, of half precision, the
library's, between kernels of ours that read and write what a product can't: LN + modulate before
it, bias + SiLU or gate + residual after it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from marfast.ops.ddpm_step.cuda import launch as launch_step
from marfast.ops.head import gpu
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.layer_norm_modulate.cuda import launch as launch_norm
from marfast.ops.runtime import cuda, rows_adjacent
from marfast.reference.head_weights import Layer


def dense(weight: Tensor) -> Tensor:
    """A weight as kernels read it: cp.async copies 16 bytes of its rows at a time."""
    weight = weight.contiguous()
    return weight if weight.data_ptr() % 16 == 0 else weight.clone()


def factor(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as it enters a product; past float16's range it is the largest float16, as what kernels
    store (csrc/cuda/operand.cuh)."""
    if x.dtype != dtype == torch.float16:
        x = x.clamp(-65504, 65504)
    return x.to(dtype)


class Launches:
    """Of layers that are `dense`."""

    def __init__(self, own_products: bool = True) -> None:
        self.own_products = own_products

    def linear(
        self,
        out: Tensor | None,
        x: Tensor,
        layer: Layer,
        *,
        norm: Norm | None = None,
        activation: str = "",
        gate: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        if out is None:
            out = x.new_empty((len(x), len(layer.weight)), dtype=layer.weight.dtype)
        if norm is None:
            x = rows_adjacent(factor(x, layer.weight.dtype))
        else:
            x = launch_norm(x.new_empty(x.shape, dtype=layer.weight.dtype), x, norm)
        if self.own_products:
            name, product = "linear", {"x": x, "weight": layer.weight}
        else:
            name, product = "linear_epilogue", {"product": torch.mm(x, layer.weight.t())}
        cuda.call(
            name,
            out.device,
            out=out,
            bias=layer.bias,
            gate=gate,
            residual=residual,
            activated=activation != "",
            **product,
        )
        return out

    def silu_sum(self, out: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        cuda.call("silu_sum", out.device, out=out, time=time, condition=condition)
        return out

    step = staticmethod(launch_step)


class TallHead(gpu.Head):
    """Whose products are the library's, of half precision.

    Its modulation is one product, with the bias from its epilogue, and of the weights' dtype: four
    bytes a number are moved, where a product of each part, then its bias in float32, move twelve.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__(weights, Launches(own_products=False))
        parts = self.weights.modulations
        self.modulated = Layer(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def modulation(self, time: Tensor, condition: Tensor, pairs: int) -> Tensor:
        activated = time.new_empty((pairs, self.width), dtype=self.dtype)
        self.launches.silu_sum(activated, time, condition)
        return torch.nn.functional.linear(activated, *self.modulated)
