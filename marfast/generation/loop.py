"""The autoregressive loop: MAR algorithm 1 over whole images. The one loop of the package.

Mask lengths depend on L and K alone, so which tokens an iteration knows and predicts is index
arithmetic on the orders: no mask is searched, and nothing waits for a device.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from marfast.model.mar import FastMAR, Schedule
from marfast.model.presets import Settings
from marfast.reference.mar import guidance_scale, mask_lengths

from .randomness import Randomness

Progress = Callable[[int, int], None]


def sample_tokens(
    model: FastMAR,
    labels: Tensor,
    randomness: Randomness,
    settings: Settings,
    schedule: Schedule,
    progress: Progress | None = None,
) -> Tensor:
    """Tokens [B, L, C] of images with the given labels [B] (−1: no class).

    schedule is the sampler's, `model.schedule(…)`; `settings.steps` is not read. progress(done, of)
    is called after each of the `settings.num_iter` iterations.
    """
    module, device = model.module, model.device
    seq_len, channels = module.seq_len, module.token_embed_dim
    model.refresh()
    lengths = mask_lengths(seq_len, settings.num_iter)
    lengths_after = [*lengths[1:-1], 0]  # the last iteration leaves nothing

    orders = randomness.orders(seq_len).to(device)
    tokens = torch.zeros(len(labels), seq_len, channels, device=device)
    rows = torch.arange(len(labels), device=device)[:, None]
    guided = settings.cfg != 1.0
    class_embedding = model.class_embedding(labels)
    if guided:
        no_class = model.class_embedding(torch.full_like(labels, -1))
        class_embedding = torch.cat([class_embedding, no_class])

    def doubled(x: Tensor) -> Tensor:
        return torch.cat([x, x]) if guided else x

    for step, (masked, left) in enumerate(zip(lengths, lengths_after, strict=False)):
        known = orders[:, masked:].sort(dim=1).values
        predict = orders[:, left:masked].sort(dim=1).values
        z = model.condition(doubled(tokens), doubled(known), doubled(predict), class_embedding)
        scale = guidance_scale(settings.cfg, settings.cfg_schedule, seq_len, lengths[step + 1])
        guidance = torch.as_tensor(scale, dtype=torch.float32).reshape(1)
        steps = len(schedule[1])
        noise, step_noise = randomness.noise(masked - left, channels, steps, guided)
        sampled = model.sample_head(
            z,
            noise.to(device),
            step_noise.to(device),
            schedule,
            guidance.to(device),
            settings.temperature,
            settings.clip_denoised,
        )
        tokens[rows, predict] = sampled.view(len(labels), -1, channels)
        if progress:
            progress(step + 1, settings.num_iter)
    return tokens
