"""The diffusion loss chunk by chunk: what is kept at a time is of a few rows.

Of the tokens that the mask weighs, a chunk has all M copies of some, copy after copy: they share a
row of c = W_c z + b_c. T, the embedded timesteps, is computed once for each timestep that occurs.
Which tokens and timesteps those are has to be known on the host, so a GPU is waited for.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast import profiling
from marfast.ops.head import HeadShape
from marfast.ops.head.passes import KEPT, Head, Sums, factor, linear
from marfast.ops.head.pytorch import wide
from marfast.ops.op import Args
from marfast.reference.diffusion_loss import training_process
from marfast.reference.head_weights import HeadWeights
from marfast.reference.timesteps import timestep_embedding

BUDGET, CPU_BUDGET = 1 << 30, 1 << 27
"""Bytes that a chunk may keep from forward to backward; a CPU's products are at their full rate
from some hundred rows on."""

GAIN = 1 / 16
"""A row's gradients are this times those of its own loss, and sums are scaled once more: float16
holds both, where the gradients of a mean over thousands of rows would vanish."""


class Chunk(NamedTuple):
    """Rows of a loss: M copies of g tokens."""

    tokens: Tensor | slice  # which these are
    z: Tensor  # [g, D]
    target: Tensor  # [M g, C]
    noise: Tensor  # [M g, C]
    t: Tensor  # [M g]
    moment: Tensor  # [M g], t's place among the timesteps that occur
    weight: Tensor  # [M g], in the mean


class Terms(NamedTuple):
    """What the rows of a chunk come to."""

    losses: Tensor  # [R]
    gradient: Tensor | None  # [R, 2C], of each row's loss in the head's output


FindTerms = Callable[[Tensor, Chunk, bool], Terms]
"""Of a head's output [R, 2C] for the noisy tokens of a chunk; whether gradients are wanted."""


class Rows:
    """The rows of an op's bound arguments that count. `weight` is theirs in the mean."""

    def __init__(self, a: Args) -> None:
        tokens = len(a.target)
        self.copies = len(a.t) // max(1, tokens)
        dtype = wide(a.target.dtype)
        self.target: Tensor = a.target.to(dtype)
        self.z: Tensor = a.cond
        self.noise = a.noise.to(dtype).view(self.copies, tokens, a.noise.shape[1])
        self.weight = a.target.new_ones(tokens, dtype=dtype)
        t = a.t.view(self.copies, tokens)
        if a.mask is None:
            self.counting = torch.arange(tokens, device=t.device)
        else:
            self.weight = a.mask.to(dtype)
            self.counting = self.weight.nonzero()[:, 0]
        self.total = self.weight.sum() * self.copies
        self.timesteps, moments = t[:, self.counting].unique(return_inverse=True)
        self.number = moments.numel()
        self.t, self.moments = t, moments.view(self.copies, len(self.counting))

    def chunks(self, shape: HeadShape) -> Iterator[Chunk]:
        """Of as many rows as are within the budget, all about equally many."""
        tokens, copies = len(self.counting), self.copies
        if tokens == 0:
            return
        numbers = (KEPT * shape.depth + KEPT) * shape.width * copies * self.target.element_size()
        budget = CPU_BUDGET if self.t.device.type == "cpu" else BUDGET
        for part in torch.arange(tokens).tensor_split(math.ceil(tokens * numbers / budget)):
            among = slice(int(part[0]), int(part[-1]) + 1)
            here = self.counting[among]
            yield Chunk(
                here,
                self.z[here],
                self.target[here].repeat(copies, 1),
                self.noise[:, here].flatten(0, 1),
                self.t[:, here].flatten(),
                self.moments[:, among].flatten(),
                self.weight[here].repeat(copies),
            )


class Times:
    """T [U, w] of the timesteps that occur, and the sum of its gradients."""

    def __init__(self, weights: HeadWeights, timesteps: Tensor, dtype: torch.dtype) -> None:
        [self.layers] = weights.times
        first = self.layers.mlp_in.weight
        self.dtype = first.dtype
        embedding = timestep_embedding(timesteps, first.shape[1])
        self.embedding = factor(embedding, self.dtype)
        self.hidden = linear(self.embedding, self.layers.mlp_in)
        self.rows = linear(F.silu(self.hidden), self.layers.mlp_out).to(dtype)
        self.gradient = torch.zeros_like(self.rows)

    def backward(self, sums: Sums) -> None:
        """From the sum of gradients on."""
        [into] = sums.weights.times
        gradient = factor(self.gradient, self.dtype)
        sums.add(into.mlp_out, gradient, F.silu(self.hidden))
        through = gradient @ self.layers.mlp_out.weight
        hidden = torch.ops.aten.silu_backward(through, self.hidden)
        sums.add(into.mlp_in, hidden, self.embedding)


def loss(a: Args, terms: FindTerms) -> Tensor:
    """`diffusion_loss` of its bound arguments."""
    dense = [weight.contiguous() for weight in a.weights]
    rows, weights = Rows(a), HeadWeights.of(dense)
    dtype = rows.target.dtype
    head, times = Head(dense, dtype), Times(weights, rows.timesteps, dtype)
    total = rows.target.new_zeros(())
    for chunk in rows.chunks(HeadShape.of(dense)):
        with profiling.range("diffusion_loss", len(chunk.t)):
            output = head.forward(*_inputs(chunk, times, weights))
            total += (terms(output, chunk, False).losses * chunk.weight).sum()
    mean: Tensor = total / rows.total
    return mean.to(a.target.dtype)


def gradients(a: Args, terms: FindTerms) -> Tensor:
    """`diffusion_loss_gradients` of its bound arguments."""
    dense = [weight.contiguous() for weight in a.weights]
    rows, weights = Rows(a), HeadWeights.of(dense)
    dtype = rows.target.dtype
    sizes = [1, a.cond.numel(), *(weight.numel() for weight in dense)]
    flat = rows.target.new_zeros(sum(sizes))
    total, of_cond, *parts = flat.split(sizes)
    of_weights = [part.view_as(w) for part, w in zip(parts, dense, strict=True)]
    sums = Sums(HeadWeights.of(of_weights), 1 / (GAIN * max(1, rows.number)))
    head, times = Head(dense, dtype, sums), Times(weights, rows.timesteps, dtype)
    of_cond = of_cond.view_as(a.cond)
    share = GAIN * rows.number / rows.total  # of the mean, but for the sums' own scale
    for chunk in rows.chunks(HeadShape.of(dense)):
        with profiling.range("diffusion_loss_gradients", len(chunk.t)):
            output = head.forward(*_inputs(chunk, times, weights))
            losses, gradient = terms(output, chunk, True)
            total += (losses * chunk.weight).sum()
            assert gradient is not None
            dy = head.backward(gradient * (chunk.weight * share)[:, None])
            times.gradient.index_put_((chunk.moment,), dy, accumulate=True)
            dc = factor(dy.unflatten(0, (rows.copies, -1)).sum(0), head.dtype)
            sums.add(sums.weights.cond[0], dc, factor(chunk.z, head.dtype))
            of_cond[chunk.tokens] = (dc @ weights.cond[0].weight).to(dtype).mul_(sums.scale)
    times.backward(sums)
    total /= rows.total
    if rows.number == 0:
        flat.fill_(math.nan)  # as the mean of nothing
    return flat.to(a.target.dtype)


def _inputs(chunk: Chunk, times: Times, weights: HeadWeights) -> tuple[Tensor, Tensor]:
    """x_t [R, C] and y = T + c [R, w]."""
    x = training_process().q_sample(chunk.target, chunk.t, chunk.noise)
    condition = linear(chunk.z, weights.cond[0]).to(times.rows.dtype)
    y = F.embedding(chunk.moment, times.rows)
    y.unflatten(0, (-1, len(condition))).add_(condition)
    return x, y
