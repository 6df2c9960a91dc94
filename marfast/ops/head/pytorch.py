"""The head's launches by PyTorch's own operators, for any device, dtype and size.

What enters a product of float16 weights, and what comes out of it, is kept within float16's range,
as Triton's kernels do: what overflowed would be NaN after the next LayerNorm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.ops.ddpm_step import Step, rows_of
from marfast.ops.head import gpu, spec_of
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.reference import denoise, diffusion
from marfast.reference.head_weights import Affine, Layer


class Launches:
    """Of any layers."""

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
        dtype = layer.weight.dtype
        x = x if norm is None else _normed(x, norm)
        as_it_is = not activation and gate is None and out is not None and out.dtype == dtype
        x = in_range(x, dtype).to(dtype)
        y = _product(x, layer, out if as_it_is else None)
        if activation:
            y = denoise.activate(in_range(y, dtype), activation)
        if as_it_is or out is None:
            return y
        y = in_range(y, dtype).to(out.dtype)
        if gate is None or residual is None:
            return out.copy_(y)
        return torch.addcmul(residual, gate, y, out=out)

    def silu_sum(self, out: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return out.copy_(F.silu(gpu.pair_sum(time, condition, len(out)), inplace=True))

    def step(self, out: Tensor, step: Step) -> None:
        state = step.x if step.x0 is None else torch.stack([step.x, step.x0])
        after, x0 = rows_of(diffusion.ddpm_step(state, *step[1:6]))
        out.unflatten(0, (-1, len(step.x))).copy_(after)
        if step.x0 is not None and x0 is not None:
            step.x0.copy_(x0)


def head_of(a: Args) -> gpu.Head:
    """The head of an op's bound arguments, the first of which has the stream's dtype or less."""
    stream = wide(a[0].dtype)
    made = gpu.Head(a.weights, Launches(), stream, spec_of(a))

    def cast(affine: Affine) -> Affine:
        return Affine(*(None if part is None else part.to(stream) for part in affine))

    blocks = [
        block._replace(norm=cast(block.norm), norm_after=cast(block.norm_after))
        for block in made.weights.blocks
    ]
    made.weights = made.weights._replace(blocks=tuple(blocks))
    return made


def wide(dtype: torch.dtype) -> torch.dtype:
    """What is neither a factor nor a result is computed in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _product(x: Tensor, layer: Layer, out: Tensor | None) -> Tensor:
    if layer.bias is None:
        return torch.mm(x, layer.weight.t(), out=out)
    return torch.addmm(layer.bias, x, layer.weight.t(), out=out)


def _normed(x: Tensor, norm: Norm) -> Tensor:
    """[R, w]; the parts of `norm` have x's dtype."""
    normed = denoise.norm(x, norm.kind, Affine(norm.weight, norm.bias), norm.eps)
    if norm.shift is None or norm.scale is None:
        return normed
    return torch.addcmul(norm.shift, normed, norm.scale + 1)


def in_range(x: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype != torch.float16:
        return x
    largest = torch.finfo(dtype).max
    return x.clamp(-largest, largest)
