"""Pocket-TTS's SimpleMLPAdaLN."""

import math

import torch
from torch import Tensor, nn

from tests.drop_in.heads.lookalikes.parts import C, D, MarBlock, MarFinal, Mlp, W


class Spread(nn.Module):
    """Pocket-TTS's norm."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(W))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha / (x.var(-1, keepdim=True) + 1e-5).sqrt()


class PocketTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(16, W), nn.SiLU(), nn.Linear(W, W), Spread())
        self.register_buffer("freqs", torch.exp(-math.log(10000) * torch.arange(8) / 8))

    def forward(self, t: Tensor) -> Tensor:
        angles = t * self.freqs
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class Pocket(nn.Module):
    def __init__(self, times: int = 2):
        super().__init__()
        self.num_time_conds = times
        self.time_embed = nn.ModuleList(PocketTime() for _ in range(times))
        self.cond_embed, self.input_proj = nn.Linear(D, W), nn.Linear(C, W)
        self.res_blocks = nn.ModuleList(MarBlock(Mlp()) for _ in range(2))
        self.final_layer = MarFinal()

    def forward(self, c: Tensor, *args: Tensor) -> Tensor:
        *times, x = args
        y = self.cond_embed(c)
        if times:
            told = zip(self.time_embed, times, strict=True)
            y = y + sum(embed(t) for embed, t in told) / len(times)
        x = self.input_proj(x)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)
