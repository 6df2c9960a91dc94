"""Sinusoids of timesteps (arXiv 1706.03762, section 3.5), as the head embeds them."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000) -> Tensor:
    """Sinusoids of t [N] -> [N, dim] float32: dim/2 cosines, then dim/2 sines."""
    # what is traced, or stands for a tensor of a device that isn't there, leaves nothing behind
    real = type(t) is Tensor and not torch.compiler.is_compiling()
    rates_of = _kept_rates if real else angular_rates
    args = t[:, None].float() * rates_of(dim // 2, max_period, t.device)[None]
    embedding = torch.cat([torch.cos(args), torch.sin(args)], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def angular_rates(half: int, max_period: float, device: torch.device) -> Tensor:
    """The embedding's angular frequencies [half], from 1 down: computed on the CPU, for the same
    bits on every device."""
    numbers = torch.arange(half, dtype=torch.float32, device="cpu")
    return torch.exp(-math.log(max_period) * numbers / half).to(device)


_kept_rates = functools.lru_cache(maxsize=16)(angular_rates)
"""A device's first call copies from the host, and no other."""
