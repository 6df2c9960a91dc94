"""The head as launches of one backend's kernels: once, or for all steps of a sample.

    T = W2 SiLU(W1 e(t) + b1) + b2, c = W_c z + b_c                3 products
    M = W_ada SiLU(T + c) + b_ada, of each block and the end       1 silu_sum, d + 1 products
    x = W_in x + b_in                                              1 product
    x = x + gate (W2 act(W1 modulate(LN(x)) + b1) + b2)           2 products, for each of d blocks
    out = W_out modulate(LN(x)) + b_out                            1 product

That is MAR's; marfast/reference/head_spec.py has the others. A modulation that blocks share is
computed once.

adaLN is hoisted out of the loop of steps: none waits for it, and its products are as tall as steps
times rows. A chunk has as many steps as keep M within MODULATION_BUDGET; where not even one does,
rows are taken in groups. Nothing here asks the device anything, so that a graph captures it.

The residual stream is float32 whatever half precision the weights have, and so is M, but where a
library makes it (head/cuda.py); what enters a product has their dtype. The kernels are PyTorch's
own, too (head/pytorch.py), on any device.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from marfast import profiling
from marfast.ops.ddpm_step import Step, result_for, rows_of
from marfast.ops.head import spec_of
from marfast.ops.layer_norm_modulate import Norm
from marfast.ops.op import Args
from marfast.reference.denoise import norm as normed
from marfast.reference.diffusion import HeadOptions
from marfast.reference.head_spec import MAR_HEAD, HeadSpec
from marfast.reference.head_weights import BlockWeights, HeadWeights, Layer
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
        activation: str = "",
        gate: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Fills `out` with y = norm(x) Wᵀ + b; or with the activation of y, for the next product;
        or with residual + gate y, where `out` may be the residual. Without `out`, the result is a
        tensor of the weights' dtype."""

    def silu_sum(self, out: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Fills `out` [P, w], of the weights' dtype, with SiLU(T + c): row p takes the rows
        p / (P / S) of T [S, w] and p % R of c [R, w]."""

    def step(self, out: Tensor, step: Step) -> None:
        """Fills `out` [N, C], [2N, C] or [3N, C] with copies of x_{t-1}."""


class Steps(NamedTuple):
    """What consecutive steps of N tokens read."""

    modulation: Tensor  # [S, R, M's width]
    noise: Tensor  # [S, N, C]
    schedule: Tensor  # [S, 8]
    guidance: Tensor  # [S, 1], or [S, 2]
    x0: Tensor | None  # [N, C], as a `Step`'s
    options: HeadOptions


class Head:
    """A head's weights and spec, and what computes with them."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        launches: Launches,
        stream: torch.dtype = torch.float32,
        spec: HeadSpec = MAR_HEAD,
    ) -> None:
        self.weights = HeadWeights.of(weights, spec)
        self.spec = spec
        self.launches = launches
        self.stream = stream  # the dtype of the residual stream, of M, T and c
        self.width = len(self.weights.input.weight)
        self.dtype = weights[0].dtype

    def time(self, embedding: Tensor) -> Tensor:
        """T [S, w] of e(t), as `sinusoids` gives it."""
        several = [embedding] if self.spec.times == 1 else embedding.unbind(1)
        embedded = []
        for e, layers in zip(several, self.weights.times, strict=True):
            hidden = self.launches.linear(None, e, layers.mlp_in, activation="silu")
            out = self._stream(e)
            self.launches.linear(out, hidden, layers.mlp_out)
            if self.spec.time_norm != "none":
                out = normed(out, self.spec.time_norm, layers.norm, self.spec.time_eps)
            embedded.append(out)
        return embedded[0] if len(embedded) == 1 else torch.stack(embedded).mean(0)

    def condition(self, z: Tensor) -> Tensor:
        """c [R, w] of z [R, D]."""
        *inner, last = self.weights.cond
        hidden = z
        for layer in inner:
            hidden = self.launches.linear(None, hidden, layer, activation="silu")
        return self.launches.linear(self._stream(z), hidden, last)

    def modulation(self, time: Tensor, condition: Tensor, pairs: int) -> Tensor:
        """M [P, (3 d + 2) w] of P pairs of T [S, w] and c [R, w] (as `silu_sum` pairs them): each
        block's three parts, or each group's that shares them, then the end's two."""
        activated = time.new_empty((pairs, self.width), dtype=self.dtype)
        if self.spec.modulation_silu:
            self.launches.silu_sum(activated, time, condition)
        else:
            activated.copy_(pair_sum(time, condition, pairs))
        layers = self.weights.modulations
        widths = [len(layer.weight) for layer in layers]
        out = time.new_empty((pairs, sum(widths)))
        for part, layer in zip(out.split(widths, dim=1), layers, strict=True):
            self.launches.linear(part, activated, layer)
        return out

    def __call__(self, out: Tensor, x: Tensor, modulation: Tensor) -> Tensor:
        """Fills `out` [R, 2C] (or [R, C]) for x [R, C] and M [R, (3 d + 2) w]."""
        spec = self.spec
        parts = modulation.split(self.width, dim=1)
        stream = self._stream(x)
        self.launches.linear(stream, x, self.weights.input)
        for i, block in enumerate(self.weights.blocks):
            first = i // spec.share * 3
            self._block(stream, block, dict(zip(spec.parts, parts[first : first + 3], strict=True)))
        end = dict(zip(spec.final_parts, parts[-2:], strict=True))
        norm = Norm(**end, eps=spec.eps, kind=spec.norm)
        return self.launches.linear(out, stream, self.weights.final, norm=norm)

    def _block(self, stream: Tensor, block: BlockWeights, parts: dict[str, Tensor]) -> None:
        """A residual block of the stream [R, w], in place."""
        spec, gate = self.spec, parts["gate"]
        norm = Norm(parts["shift"], parts["scale"], *block.norm, eps=spec.eps, kind=spec.norm)
        layers = (block.mlp_in, block.mlp_out)
        if not spec.norm_after:
            adaln_mlp(self.launches, stream, stream, norm, layers, gate, spec.activation)
            return
        hidden = self.launches.linear(
            None, stream, block.mlp_in, norm=norm, activation=spec.activation
        )
        after = self.launches.linear(self._stream(stream), hidden, block.mlp_out)
        stream.addcmul_(gate, normed(after, spec.norm, block.norm_after, spec.eps_after))

    def run(self, out: Tensor, state: Tensor, steps: Steps) -> None:
        """Fills `out` with what the steps make of `state` [N, C], launch by launch."""
        tokens, channels = state.shape
        rows = steps.modulation.shape[1]
        x = state.repeat(rows // tokens, 1)  # one state for each of a token's rows
        output = state.new_empty((rows, len(self.weights.final.weight)))
        learned = output if steps.options.learned_range else output[:, :channels]
        last = len(steps.modulation) - 1
        for i, modulation in enumerate(steps.modulation):
            self(output, x, modulation)
            now = steps.noise[i], steps.schedule[i], steps.guidance[i]
            step = Step(x[:tokens], learned, *now, steps.options, steps.x0)
            self.launches.step(out if i == last else x, step)

    def _stream(self, like: Tensor) -> Tensor:
        return like.new_empty((len(like), self.width), dtype=self.stream)


def sinusoids(t: Tensor, weights: HeadWeights, spec: HeadSpec) -> Tensor:
    """e(t) [S, frequencies] of t [S], or [S, times, frequencies] of [S, times]."""
    t = t if spec.time_scale == 1.0 else t * spec.time_scale
    frequencies = weights.times[0].mlp_in.weight.shape[1]
    embedding = timestep_embedding(t.flatten(), frequencies)
    return embedding if t.dim() == 1 else embedding.view(*t.shape, frequencies)


def pair_sum(time: Tensor, condition: Tensor, pairs: int) -> Tensor:
    """T + c [P, w]: row p takes the rows p / (P / S) of T [S, w] and p % R of c [R, w]."""
    together = pairs // len(time)  # pairs that share a row of T
    together_condition: Tensor = condition.unflatten(0, (-1, together))
    return (time[:, None] + together_condition).flatten(0, 1)


def adaln_mlp(
    launches: Launches,
    out: Tensor,
    x: Tensor,
    norm: Norm,
    layers: tuple[Layer, Layer],
    gate: Tensor,
    activation: str = "silu",
) -> Tensor:
    """Fills `out` [R, w], which may be x, with x + gate (W₂ act(W₁ norm(x) + b₁) + b₂)."""
    mlp_in, mlp_out = layers
    with profiling.range("adaln_mlp", len(x)):
        hidden = launches.linear(None, x, mlp_in, norm=norm, activation=activation)
        return launches.linear(out, hidden, mlp_out, gate=gate, residual=x)


def denoise(head: Head, out: Tensor, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Fills `out` [R, 2C] (or [R, C]), as the op."""
    embedding = sinusoids(t, head.weights, head.spec)
    group = pairs_in_budget(head.weights)
    with profiling.range("denoise", len(x)):
        for first in range(0, len(x), group):
            rows = slice(first, first + group)
            time, condition = head.time(embedding[rows]), head.condition(cond[rows])
            head(out[rows], x[rows], head.modulation(time, condition, len(time)))
    return out


def sample(a: Args, options: HeadOptions, scales: Tensor, head_of: Callable[[int], Head]) -> Tensor:
    """`ddpm_sample` of its bound arguments, with guidance scales [S, 1] or [S, 2]; head_of(R) is
    what runs so many rows."""
    result = result_for(a.noise)
    out, x0 = rows_of(result)
    tokens, steps = len(out), len(a.schedule)
    if tokens == 0:
        return result
    (noise, _), schedule = rows_of(a.noise.contiguous()), a.schedule.contiguous()
    step_noise = a.step_noise if a.step_noise[0].is_contiguous() else a.step_noise.contiguous()
    copies = options.branches
    spec = spec_of(a)
    weights = HeadWeights.of(a.weights, spec)
    embedding, pairs = sinusoids(a.timesteps, weights, spec), pairs_in_budget(weights)
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
                    options,
                )
                after = out[members] if end == steps else torch.empty_like(state)
                head.run(after, state, now)
                state = after
    return result


def pairs_in_budget(weights: HeadWeights) -> int:
    """How many pairs of a step and a row have their modulation within the budget: at least 1."""
    numbers = sum(len(layer.weight) for layer in weights.modulations)
    on_cpu = weights.input.weight.device.type == "cpu"
    budget = min(MODULATION_BUDGET, CPU_BUDGET) if on_cpu else MODULATION_BUDGET
    return max(1, budget // (4 * numbers))
