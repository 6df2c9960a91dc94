"""Sinusoids of timesteps (arXiv 1706.03762, section 3.5), as the head embeds them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000) -> Tensor:
    """Sinusoids of t [N] -> [N, dim] float32: dim/2 cosines, then dim/2 sines."""
    return sinusoids(t, angular_rates(dim // 2, max_period).to(t.device), dim)


def angular_rates(half: int, max_period: float = 10000) -> Tensor:
    """The embedding's angular frequencies [half], from 1 down."""
    numbers = torch.arange(half, dtype=torch.float32, device="cpu")
    return torch.exp(-math.log(max_period) * numbers / half)


def sinusoids(t: Tensor, rates: Tensor, dim: int) -> Tensor:
    """`timestep_embedding` by rates that are on t's device."""
    args = t[:, None].float() * rates[None]
    embedding = torch.cat([torch.cos(args), torch.sin(args)], dim=-1)
    return F.pad(embedding, (0, dim % 2))
