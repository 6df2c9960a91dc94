"""The head as launches of one backend's kernels: once, or for all steps of a sample.

    T = W2 SiLU(W1 e(t) + b1) + b2, c = W_c z + b_c                3 products
    M = W_ada SiLU(T + c) + b_ada, of each block and the end       1 silu_sum, d + 1 products
    x = W_in x + b_in                                              1 product
    x = x + gate (W2 act(W1 modulate(LN(x)) + b1) + b2)           2 products, for each of d blocks
    out = W_out modulate(LN(x)) + b_out                            1 product

adaLN is hoisted out of the loop of steps: none waits for it, and its products are as tall as steps
times rows. A chunk has as many steps as keep M within MODULATION_BUDGET; where not even one does,
rows are taken in groups. Nothing here asks the device anything, so that a graph captures it.

The residual stream and M are float32 whatever half precision the weights have; what enters a
product has their dtype. The kernels are PyTorch's own, too (head/pytorch.py), on any device.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from marfast import profiling
from marfast.ops.ddpm_step import Step, result_for, rows_of
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.reference.diffusion import HeadOptions
from marfast.reference.head_weights import HeadWeights, Layer
from marfast.reference.timesteps import timestep_embedding

MODULATION_BUDGET = 1 << 30
"""Bytes that the modulation may take; past it, it is computed for fewer steps or rows at a time."""

CPU_BUDGET = 1 << 26
"""The most on a CPU, where products are at their full rate from some hundred rows on."""


class Launches(Protocol):
    """A backend's kernels, as the head needs them."""

    def linear(
        self,
        out: Tensor | None,
        x: Tensor,
        layer: Layer,
        *,
        norm: Norm | None = None,
        activate: HeadOptions | None = None,
        gate: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Fills `out` with y = norm(x) Wᵀ + b; or with these options' activation of y, for the next
        product; or with residual + gate y, where `out` may be the residual. Without `out`, the
        result is a tensor of the weights' dtype."""

    def silu_sum(self, out: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Fills `out` [P, w], of the weights' dtype, with SiLU(T + c): row p takes the rows
        p / (P / S) of T [S, w] and p % R of c [R, w]."""

    def step(self, out: Tensor, step: Step) -> None:
        """Fills `out` [N, C] or [2N, C] with one or two copies of x_{t-1}."""


class Steps(NamedTuple):
    """What consecutive steps of N tokens read."""

    modulation: Tensor  # [S, R, (3 d + 2) w]
    noise: Tensor  # [S, N, C]
    schedule: Tensor  # [S, 8]
    guidance: Tensor  # [S]
    x0: Tensor | None  # [N, C], as a `Step`'s


class Head:
    """A head's weights and options, and what computes with them."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        options: HeadOptions,
        launches: Launches,
        stream: torch.dtype = torch.float32,
    ) -> None:
        self.weights = HeadWeights.of(weights)
        self.options = options
        self.launches = launches
        self.stream = stream  # the dtype of the residual stream, of M, T and c
        self.width, self.frequencies = self.weights.time_in.weight.shape
        self.dtype = weights[0].dtype

    def time(self, embedding: Tensor) -> Tensor:
        """T [S, w] of e(t) [S, frequencies]."""
        silu = HeadOptions()  # whatever the blocks' activation is
        hidden = self.launches.linear(None, embedding, self.weights.time_in, activate=silu)
        out = embedding.new_empty((len(embedding), self.width), dtype=self.stream)
        return self.launches.linear(out, hidden, self.weights.time_out)

    def condition(self, z: Tensor) -> Tensor:
        """c [R, w] of z [R, D]."""
        out = z.new_empty((len(z), self.width), dtype=self.stream)
        return self.launches.linear(out, z, self.weights.cond)

    def modulation(self, time: Tensor, condition: Tensor, pairs: int) -> Tensor:
        """M [P, (3 d + 2) w] of P pairs of T [S, w] and c [R, w] (as `silu_sum` pairs them): each
        block's shift, scale and gate, then the end's shift and scale."""
        activated = time.new_empty((pairs, self.width), dtype=self.dtype)
        self.launches.silu_sum(activated, time, condition)
        layers = [block.modulation for block in self.weights.blocks]
        layers.append(self.weights.final_modulation)
        widths = [len(layer.bias) for layer in layers]
        out = time.new_empty((pairs, sum(widths)))
        for part, layer in zip(out.split(widths, dim=1), layers, strict=True):
            self.launches.linear(part, activated, layer)
        return out

    def __call__(self, out: Tensor, x: Tensor, modulation: Tensor) -> Tensor:
        """Fills `out` [R, 2C] for x [R, C] and M [R, (3 d + 2) w]."""
        *blocks, shift, scale = modulation.split(self.width, dim=1)
        stream = x.new_empty((len(x), self.width), dtype=self.stream)
        self.launches.linear(stream, x, self.weights.input)
        parts = zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True)
        for block, (of_shift, of_scale, gate) in zip(self.weights.blocks, parts, strict=True):
            norm = Norm(of_shift, of_scale, block.norm.weight, block.norm.bias)
            layers = (block.mlp_in, block.mlp_out)
            adaln_mlp(self.launches, stream, stream, norm, layers, gate, self.options)
        return self.launches.linear(out, stream, self.weights.final, norm=Norm(shift, scale))

    def run(self, out: Tensor, state: Tensor, steps: Steps) -> None:
        """Fills `out` with what the steps make of `state` [N, C], launch by launch."""
        tokens, channels = state.shape
        rows = steps.modulation.shape[1]
        x = state.repeat(rows // tokens, 1)  # one state for each of a token's rows
        output = state.new_empty((rows, 2 * channels))
        learned = output if self.options.learned_range else output[:, :channels]
        last = len(steps.modulation) - 1
        for i, modulation in enumerate(steps.modulation):
            self(output, x, modulation)
            now = steps.noise[i], steps.schedule[i], steps.guidance[i : i + 1]
            step = Step(x[:tokens], learned, *now, self.options, steps.x0)
            self.launches.step(out if i == last else x, step)


def adaln_mlp(
    launches: Launches,
    out: Tensor,
    x: Tensor,
    norm: Norm,
    layers: tuple[Layer, Layer],
    gate: Tensor,
    options: HeadOptions,
) -> Tensor:
    """Fills `out` [R, w], which may be x, with x + gate (W₂ act(W₁ norm(x) + b₁) + b₂)."""
    mlp_in, mlp_out = layers
    with profiling.range("adaln_mlp", len(x)):
        hidden = launches.linear(None, x, mlp_in, norm=norm, activate=options)
        return launches.linear(out, hidden, mlp_out, gate=gate, residual=x)


def denoise(head: Head, out: Tensor, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Fills `out` [R, 2C], as the op."""
    embedding = timestep_embedding(t, head.frequencies)
    group = pairs_in_budget(head.weights)
    with profiling.range("denoise", len(x)):
        for first in range(0, len(x), group):
            rows = slice(first, first + group)
            time, condition = head.time(embedding[rows]), head.condition(cond[rows])
            head(out[rows], x[rows], head.modulation(time, condition, len(time)))
    return out


def sample(a: Args, head_of: Callable[[int], Head]) -> Tensor:
    """`ddpm_sample` of its bound arguments; head_of(R) is what runs so many rows."""
    result = result_for(a.noise)
    out, x0 = rows_of(result)
    tokens, steps = len(out), len(a.schedule)
    if tokens == 0:
        return result
    embedding = timestep_embedding(a.timesteps, a.weights[0].shape[1])
    (noise, _), schedule = rows_of(a.noise.contiguous()), a.schedule.contiguous()
    scales = a.guidance.expand(steps).contiguous()
    step_noise = a.step_noise if a.step_noise[0].is_contiguous() else a.step_noise.contiguous()
    copies = len(a.cond) // tokens  # rows of a token: 2 under guidance
    pairs = pairs_in_budget(HeadWeights.of(a.weights))
    group = min(tokens, max(1, pairs // copies))
    for first in range(0, tokens, group):
        members = slice(first, min(tokens, first + group))
        state = noise[members]
        rows = copies * len(state)
        head = head_of(rows)
        time = head.time(embedding)
        cond = a.cond.unflatten(0, (copies, tokens))[:, members].flatten(0, 1)
        condition = head.condition(cond)
        chunk = min(steps, max(1, pairs // rows))
        for begin in range(0, steps, chunk):
            end = min(steps, begin + chunk)
            with profiling.range(f"steps {begin}-{end - 1}", rows):
                modulation = head.modulation(time[begin:end], condition, (end - begin) * rows)
                now = Steps(
                    modulation.unflatten(0, (-1, rows)),
                    step_noise[begin:end, members],
                    schedule[begin:end],
                    scales[begin:end],
                    None if x0 is None else x0[members],
                )
                after = out[members] if end == steps else torch.empty_like(state)
                head.run(after, state, now)
                state = after
    return result


def pairs_in_budget(weights: HeadWeights) -> int:
    """How many pairs of a step and a row have their modulation within the budget: at least 1."""
    numbers = (3 * len(weights.blocks) + 2) * len(weights.input.weight)
    on_cpu = weights.input.weight.device.type == "cpu"
    budget = min(MODULATION_BUDGET, CPU_BUDGET) if on_cpu else MODULATION_BUDGET
    return max(1, budget // (4 * numbers))
