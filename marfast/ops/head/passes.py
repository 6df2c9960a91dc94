"""MAR's head forward, and backward by hand, in PyTorch's own operators: for losses.

Backward keeps nine rows of width w a block and adds gradients of weights up where they are wanted,
so that chunk after chunk of rows leaves one sum. What enters a product has the weights' dtype; the
residual stream, LayerNorm and sums are float32 (float64 where x is). On a CPU each pass over memory
counts: 1 of 1 + scale is in the bias, parts of a modulation's gradient are written side by side,
and sums over rows are products with ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.ops.head.pytorch import in_range
from marfast.reference.head_weights import Affine, HeadWeights, Layer

EPS = 1e-6
KEPT = 9
"""Rows of width w that are kept of a block: the fields of `_Block`."""

_layer_norm_backward = torch.ops.aten.native_layer_norm_backward


class Sums(NamedTuple):
    """Where gradients of weights are added up, each times `scale`."""

    weights: HeadWeights
    scale: float

    def add(self, into: Layer, gradient: Tensor, x: Tensor) -> None:
        """Of a layer's product of x [R, inputs], by that of its result [R, outputs], both as they
        enter products."""
        weight, bias = both(into)
        rows = gradient.t()
        ones = x.new_ones(len(x))
        if weight.dtype == x.dtype:
            weight.addmm_(rows, x, alpha=self.scale)
            bias.addmv_(rows, ones, alpha=self.scale)
        else:
            weight.add_(rows @ x, alpha=self.scale)
            bias.add_(gradient.sum(0, dtype=bias.dtype), alpha=self.scale)


class _Block(NamedTuple):
    """What a block's backward reads."""

    x: Tensor  # [R, w]
    mean: Tensor  # [R, 1]
    rstd: Tensor  # [R, 1]
    normed: Tensor  # [R, w]
    modulation: Tensor  # [R, 3 w]: shift, 1 + scale, gate
    h: Tensor  # [R, w], into the MLP
    hidden: Tensor  # [R, w], before SiLU
    activated: Tensor  # [R, w]
    update: Tensor  # [R, w], before the gate


class Head:
    """A head's weights; `sums` says that backward follows forward."""

    def __init__(
        self, weights: Sequence[Tensor], stream: torch.dtype, sums: Sums | None = None
    ) -> None:
        self.weights = HeadWeights.of(weights)
        self.width = len(weights[0])
        self.dtype, self.stream = weights[0].dtype, stream
        self.sums = sums
        self.norms = [_cast(block.norm, stream) for block in self.weights.blocks]
        *self.modulations, self.final_modulation = map(self._scale_from_1, self.weights.modulations)

    def _scale_from_1(self, layer: Layer) -> Layer:
        """A layer that gives 1 + scale for scale."""
        weight, bias = both(layer)
        bias = bias.clone()
        bias[self.width : 2 * self.width] += 1
        return Layer(weight, bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [R, C] and y = T + c [R, w], of the stream's dtype -> [R, 2C], likewise."""
        self._inputs, self._y = factor(x, self.dtype), y
        self._s = factor(F.silu(y), self.dtype)
        self._blocks: list[_Block] = []
        x = linear(self._inputs, self.weights.input).to(self.stream)
        for place in range(len(self.norms)):
            x = self._block(x, place)
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[1:], None, None, EPS)
        modulation = linear(self._s, self.final_modulation)
        h = self._modulated(normed, modulation)
        self._end = x, mean, rstd, normed, modulation, h
        return linear(h, self.weights.final).to(self.stream)

    def _block(self, x: Tensor, place: int) -> Tensor:
        weights = self.weights.blocks[place]
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[1:], *self.norms[place], EPS)
        modulation = linear(self._s, self.modulations[place])
        h = self._modulated(normed, modulation)
        hidden = linear(h, weights.mlp_in)
        activated = F.silu(hidden)
        update = linear(activated, weights.mlp_out)
        if self.sums is not None:
            kept = x, mean, rstd, normed, modulation, h, hidden, activated, update
            self._blocks.append(_Block(*kept))
        return (modulation[:, 2 * self.width :] * update.to(self.stream)).add_(x)

    def _modulated(self, normed: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation[:, : self.width], modulation[:, self.width : 2 * self.width]
        return factor((normed * scale).add_(shift), self.dtype)

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of what forward gave last, [R, 2C] -> that of y [R, w]."""
        assert self.sums is not None
        sums, weights, w = self.sums.weights, self.weights, self.width
        x, mean, rstd, normed, modulation, h = self._end
        gradient = factor(gradient, self.dtype)
        self.sums.add(sums.final, gradient, h)
        together = x.new_empty((len(x), 2 * w), dtype=self.dtype)
        dh = torch.mm(gradient, weights.final.weight, out=together[:, :w])
        dnormed = self._modulation_backward(dh, normed, modulation, together)
        dx: Tensor = _layer_norm_backward(
            dnormed, x, x.shape[1:], mean, rstd, None, None, [True, False, False]
        )[0]
        self.sums.add(sums.final_modulation, together, self._s)
        ds = (together @ weights.final_modulation.weight).to(self.stream)
        for place in reversed(range(len(self.norms))):
            dx = self._block_backward(dx, ds, place)
        self.sums.add(sums.input, factor(dx, self.dtype), self._inputs)
        dy: Tensor = torch.ops.aten.silu_backward(ds, self._y)
        return dy

    def _block_backward(self, dx: Tensor, ds: Tensor, place: int) -> Tensor:
        """The gradient of a block's result -> that of its x; adds that of SiLU(y) to ds."""
        assert self.sums is not None
        weights, into, w = self.weights.blocks[place], self.sums.weights.blocks[place], self.width
        kept = self._blocks.pop()
        dupdate = factor(dx * kept.modulation[:, 2 * w :], self.dtype)
        self.sums.add(into.mlp_out, dupdate, kept.activated)
        dactivated = dupdate @ weights.mlp_out.weight
        dhidden = factor(torch.ops.aten.silu_backward(dactivated, kept.hidden), self.dtype)
        self.sums.add(into.mlp_in, dhidden, kept.h)
        together = dx.new_empty((len(dx), 3 * w), dtype=self.dtype)
        dh = torch.mm(dhidden, weights.mlp_in.weight, out=together[:, :w])
        dnormed = self._modulation_backward(dh, kept.normed, kept.modulation, together)
        together[:, 2 * w :].copy_(in_range(dx * kept.update, self.dtype))
        self.sums.add(self.sums.weights.modulations[place], together, self._s)
        modulation = self.modulations[place].weight
        if ds.dtype == self.dtype:
            ds.addmm_(together, modulation)
        else:
            ds.add_(together @ modulation)
        through, *affine = _layer_norm_backward(
            *(dnormed, kept.x, dx.shape[1:], kept.mean, kept.rstd),
            *(*self.norms[place], [True, True, True]),
        )
        into_norm = (part for part in into.norm if part is not None)
        for part, gradient in zip(into_norm, affine, strict=True):
            part.add_(gradient, alpha=self.sums.scale)
        return dx.add_(through)

    def _modulation_backward(
        self, dh: Tensor, normed: Tensor, modulation: Tensor, together: Tensor
    ) -> Tensor:
        """From that of h, which is that of shift -> that of what was normed [R, w]; the scale's is
        put beside."""
        w = self.width
        together[:, w : 2 * w].copy_(in_range(dh * normed, self.dtype))
        return (dh * modulation[:, w : 2 * w]).to(self.stream)


def linear(x: Tensor, layer: Layer) -> Tensor:
    """Of x as it is or rounded to the weights' dtype, which the result has."""
    x = factor(x, layer.weight.dtype)
    weight, bias = both(layer)
    return in_range(torch.addmm(bias, x, weight.t()), weight.dtype)


def both(layer: Layer) -> tuple[Tensor, Tensor]:
    """Weight and bias, which all of MAR's layers have."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def factor(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as it enters a product of this dtype."""
    return in_range(x, dtype).to(dtype)


def _cast(norm: Affine, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight, bias = norm
    assert weight is not None
    assert bias is not None
    return weight.to(dtype), bias.to(dtype)
