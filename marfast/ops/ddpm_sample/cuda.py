"""`ddpm_sample` on a GPU: who does which step (csrc/cuda/plan.h).

    once:          T = time MLP of all S steps, c = W_c z + b_c
    every chunk:   M = the modulation of its steps, S' R rows tall
                   its steps: persistent, one cooperative kernel; or tall, 5 d + 4 launches a step

adaLN is hoisted out of the loop: no step waits for it. A chunk has as many steps as keep M within a
budget of bytes; where not even one does, tokens are taken in groups. Nothing here asks the device
anything, so a graph captures it.

The persistent regime computes every product by our own kernels: a token's bits depend on no batch.
The tall one takes the library's products in bfloat16 and float16, between our kernels, which read
and write what a product can't: LN + modulate before it, bias + SiLU or gate + residual after it. In
float32 it takes our own there, too, whose order of additions is defined (docs/numerics.md).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from marfast import profiling
from marfast.ops import cuda, plan
from marfast.ops.head import HeadShape

BARRIER_LIMIT = 20 * 10**9
"""Nanoseconds that a block waits for the others, before the kernel ends in an error."""


def dense(weight: Tensor) -> Tensor:
    """Rows that cp.async copies 16 bytes at a time."""
    weight = weight.contiguous()
    return weight if weight.data_ptr() % 16 == 0 else weight.clone()


class Head:
    """A head's weights and what computes with them, by our products or the library's."""

    def __init__(self, shape: HeadShape, weights: Sequence[Tensor], own_products: bool):
        self.shape = shape
        self.weights = [dense(weight) for weight in weights]
        self.dtype, self.device = weights[0].dtype, weights[0].device
        self.own_products = own_products

    def elements(self, *sizes: int) -> Tensor:
        """Room for what enters a product."""
        return torch.empty(sizes, dtype=self.dtype, device=self.device)

    def floats(self, *sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=torch.float32, device=self.device)

    def linear(
        self,
        place: int,
        x: Tensor,
        out: Tensor,
        *,
        silu: bool = False,
        gate: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """out = y, SiLU(y) or residual + gate y; y = x W^T + b, W and b at weights[place ...]."""
        weight, bias = self.weights[place : place + 2]
        name = "linear"
        if not self.own_products:
            name, x = "linear_epilogue", torch.mm(x, weight.t())
        cuda.call(
            *(name, self.device),
            *(tensor.data_ptr() for tensor in (out, x, weight, bias)),
            *(0 if tensor is None else tensor.data_ptr() for tensor in (gate, residual)),
            *(len(x), weight.shape[1], weight.shape[0]),
            *(out.stride(0), x.stride(0)),
            *(0 if tensor is None else tensor.stride(0) for tensor in (gate, residual)),
            *(cuda.code(self.dtype), silu),
        )
        return out

    def time(self, embedding: Tensor) -> Tensor:
        """T [S, w] of e(t) [S, frequencies]."""
        steps, width = len(embedding), self.shape.width
        hidden = self.linear(0, embedding.to(self.dtype), self.elements(steps, width), silu=True)
        return self.linear(2, hidden, self.floats(steps, width))

    def condition(self, cond: Tensor) -> Tensor:
        """c [R, w] of z [R, D]."""
        return self.linear(4, cond.to(self.dtype), self.floats(len(cond), self.shape.width))

    def modulation(self, time: Tensor, condition: Tensor) -> Tensor:
        """M [S, R, (3 d + 2) w] of T [S, w] and c [R, w]: each block's shift, scale and gate, then
        the final layer's shift and scale."""
        steps, rows = len(time), len(condition)
        _, _, width, depth, _ = self.shape
        activated = self.elements(steps * rows, width)
        cuda.call(
            *("silu_sum", self.device),
            *(tensor.data_ptr() for tensor in (activated, time, condition)),
            *(steps * rows, rows, rows, width, cuda.code(self.dtype)),
        )
        out = self.floats(steps * rows, (3 * depth + 2) * width)
        for block in range(depth):
            self.linear(14 + 8 * block, activated, out[:, 3 * block * width :])
        self.linear(10 + 8 * depth, activated, out[:, 3 * depth * width :])
        return out.view(steps, rows, -1)

    def normalise(self, x: Tensor, block: int, modulation: Tensor, out: Tensor) -> Tensor:
        """LN(x) (1 + scale) + shift [R, w]; the final layer's LN has no affine."""
        width, depth = self.shape.width, self.shape.depth
        shift = modulation[:, 3 * block * width :]
        scale = shift[:, width:]
        place = 8 + 8 * block
        affine = (
            [w.data_ptr() for w in self.weights[place : place + 2]] if block < depth else [0] * 2
        )
        cuda.call(
            *("layer_norm_modulate", self.device),
            *(tensor.data_ptr() for tensor in (out, x, shift, scale)),
            *(*affine, len(x), width),
            *(tensor.stride(0) for tensor in (x, shift, scale)),
            *map(cuda.code, (torch.float32, self.dtype, self.dtype)),
            1e-6,
        )
        return out


class Call(NamedTuple):
    """What every step of a call reads."""

    head: Head
    step_noise: Tensor  # [S, N, C]
    schedule: Tensor  # [S, 7]
    guidance: Tensor  # [1]
    guided: bool
    temperature: float
    clip_denoised: bool


def persistent(
    call: Call, begin: int, modulation: Tensor, state: Tensor, chosen: plan.HeadPlan
) -> Tensor:
    """The state [N, C] after the steps from `begin` whose modulation [S', R, ...] is given."""
    head, (tokens, channels) = call.head, state.shape
    steps, rows, _ = modulation.shape
    out, own_state = head.floats(tokens, channels), head.floats(tokens, channels)
    x, (normed, hidden) = (
        head.floats(rows, head.shape.width),
        head.elements(2, rows, head.shape.width),
    )
    table = torch.empty(len(head.weights) + 1, dtype=torch.int64, device=head.device)
    barrier = table[-1:]
    cuda.call(
        *("sample_tables", head.device, table.data_ptr(), barrier.data_ptr()),
        [weight.data_ptr() for weight in head.weights],
    )
    inputs = (state, call.step_noise[begin], call.schedule[begin], call.guidance, modulation)
    cuda.call(
        *("ddpm_sample", head.device, out.data_ptr()),
        *(tensor.data_ptr() for tensor in (*inputs, table, x, own_state, normed, hidden, barrier)),
        *(tuple(head.shape), tokens, steps, call.step_noise.stride(0)),
        *(chosen.row_groups, chosen.column_groups, chosen.row_tile, chosen.columns),
        *(chosen.stationary, chosen.staged, chosen.normalise_once, cuda.code(head.dtype)),
        *(call.guided, call.temperature, call.clip_denoised, BARRIER_LIMIT),
    )
    return out


def tall(call: Call, begin: int, modulation: Tensor, state: Tensor) -> Tensor:
    """As `persistent`, launch by launch."""
    head, (tokens, channels) = call.head, state.shape
    rows, width, depth = modulation.shape[1], head.shape.width, head.shape.depth
    x, output = head.floats(rows, width), head.floats(rows, 2 * channels)
    normed, hidden = head.elements(2, rows, width)
    for step, now in enumerate(modulation, begin):
        head.linear(6, state.to(head.dtype), x[:tokens])
        if call.guided:
            x[tokens:] = x[:tokens]
        for block in range(depth):
            place = 10 + 8 * block
            head.linear(place, head.normalise(x, block, now, normed), hidden, silu=True)
            gate = now[:, (3 * block + 2) * width :]
            head.linear(place + 2, hidden, x, gate=gate, residual=x)
        head.linear(8 + 8 * depth, head.normalise(x, depth, now, normed), output)
        before, state = state, torch.empty_like(state)
        inputs = (before, output, call.step_noise[step], call.schedule[step], call.guidance)
        cuda.call(
            *("ddpm_step", head.device),
            *(tensor.data_ptr() for tensor in (state, *inputs)),
            *(tokens, channels, channels, 2 * channels, channels, cuda.code(torch.float32)),
            *(call.guided, call.temperature, call.clip_denoised),
        )
    return state


def regime(
    shape: HeadShape, dtype: torch.dtype, device: torch.device, rows: int, steps: int
) -> tuple[plan.HeadPlan | None, str]:
    """The plan of the persistent kernel; or None, and why the tall regime takes its place."""
    if shape.width % 32 or shape.width > 2048 or shape.depth == 0:
        return (
            None,
            f"width {shape.width}, depth {shape.depth}: the kernel takes multiples of 32 to 2048",
        )
    chosen = plan.head_plan(rows, shape, plan.profile_of(device), dtype, steps)
    if chosen.regime == "tall":
        return None, f"{rows} rows are predicted to be faster by tall products"
    ctas = chosen.row_groups * chosen.column_groups
    sizes = (chosen.row_tile, chosen.columns, chosen.stationary, chosen.staged)
    with cuda.on(device):
        resident = cuda.module().resident_blocks(tuple(shape), cuda.code(dtype), *sizes)
    if resident < ctas:
        return None, f"the device holds {resident} of its {ctas} blocks at once"
    return chosen, ""


def sample(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    embedding: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
    budget: int = plan.MODULATION_BUDGET,
) -> Tensor:
    """As the op, with e(t) [S, frequencies] in place of the timesteps."""
    shape, dtype = HeadShape.of(weights), weights[0].dtype
    tokens, steps = len(noise), len(schedule)
    out = torch.empty_like(noise)
    if noise.numel() == 0:
        return out
    copies = len(cond) // tokens  # of a token's state: 2 under guidance
    each = (3 * shape.depth + 2) * shape.width * 4  # bytes of a row's modulation
    group = min(tokens, max(1, budget // (copies * each)))
    for first in range(0, tokens, group):
        members = slice(first, min(tokens, first + group))
        state = noise[members].contiguous()
        rows = copies * len(state)
        chosen, _ = regime(shape, dtype, noise.device, rows, steps)
        own_products = chosen is not None or dtype == torch.float32
        head = Head(shape, weights, own_products)
        call = Call(
            *(head, step_noise[:, members].contiguous(), schedule.contiguous(), guidance),
            *(copies == 2, temperature, clip_denoised),
        )
        own = cond.unflatten(0, (copies, tokens))[:, members].flatten(0, 1).contiguous()
        with contextlib.nullcontext() if own_products else full_sums():
            time, condition = head.time(embedding), head.condition(own)
            chunk = max(1, budget // (rows * each))
            for begin in range(0, steps, chunk):
                with profiling.range(f"steps {begin}-{min(steps, begin + chunk) - 1}", rows):
                    modulation = head.modulation(time[begin : begin + chunk], condition)
                    if chosen is None:
                        state = tall(call, begin, modulation, state)
                    else:
                        state = persistent(call, begin, modulation, state, chosen)
        out[members] = state
    return out


@contextlib.contextmanager
def full_sums() -> Iterator[None]:
    """The library adds in float32, also where it splits a sum."""
    matmul = torch.backends.cuda.matmul
    names = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
    before = [getattr(matmul, name) for name in names]
    try:
        for name in names:
            setattr(matmul, name, False)
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(matmul, name, value)
