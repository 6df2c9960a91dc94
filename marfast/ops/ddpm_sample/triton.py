"""`ddpm_sample`: the S steps of the head's loop, as a plain sequence of launches.

    once:          T = time MLP of all S steps, c = W_c z + b_c                       3 launches
    every chunk:   the modulation of (chunk steps) x (R rows)                         d + 2
    every step:    the head with it, then the update                                  2 d + 3

adaLN is hoisted out of the loop: no step waits for it, and its products are (chunk R) rows tall. A
chunk has as many steps as keep the modulation within a budget of bytes; where not even one step
does, tokens are taken in groups. Nothing here asks the device anything, and every launch has its
arguments from the shapes alone, so the whole is one capture (`graphs`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import graphs, tiles
from .ddpm_step import launch as launch_step
from .denoise import Head, time_embedding
from .modulation import modulation


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
    budget: int = tiles.MODULATION_BYTES,
) -> Tensor:
    """As the op, with e(t) [S, frequencies] in place of the timesteps. Dense tensors."""
    head = Head(weights)
    tokens, steps = len(noise), len(schedule)
    copies = len(cond) // max(1, tokens)  # of a token's state: 2 under guidance
    out = noise.new_empty(noise.shape)
    if noise.numel() == 0:
        return out
    time = head.time(embedding)
    group = max(1, head.pairs(budget) // copies)
    for first in range(0, tokens, group):
        members = slice(first, min(tokens, first + group))
        rows = copies * (members.stop - members.start)
        state = noise[members].repeat(copies, 1)  # [R, C]
        current = state[: rows // copies]
        output = state.new_empty((rows, 2 * state.shape[1]))
        c = head.cond(cond.unflatten(0, (copies, tokens))[:, members].flatten(0, 1))
        chunk = min(steps, max(1, head.pairs(budget) // rows))
        for begin in range(0, steps, chunk):
            ahead = modulation(time[begin : begin + chunk], c, rows, head.projections)
            for i, step in enumerate(range(begin, min(steps, begin + chunk))):
                head(state, [m[i * rows : (i + 1) * rows] for m in ahead], output)
                target = out[members] if step == steps - 1 else state
                launch_step(
                    *(target, current, output, step_noise[:, members], schedule, guidance),
                    *(step, temperature, clip_denoised),
                )
    return out


def ddpm_sample(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
    packed: Tensor | None,
) -> Tensor:
    """The op. `packed` is the CPU's, and not read."""
    noise, step_noise, cond, schedule = (
        tensor.contiguous() for tensor in (noise, step_noise, cond, schedule)
    )
    embedding = time_embedding(timesteps, weights[0].shape[1])
    inputs = (noise, step_noise, cond, schedule, embedding, guidance)
    on_gpu = noise.device.type == "cuda"
    if on_gpu and noise.numel() and not torch.cuda.is_current_stream_capturing():
        return graphs.sample(sample, inputs, weights, temperature, clip_denoised)
    rest = (schedule, embedding, guidance, temperature, clip_denoised)
    return sample(noise, step_noise, cond, weights, *rest)
