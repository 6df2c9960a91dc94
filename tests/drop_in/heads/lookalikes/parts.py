"""What the look-alikes share."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from marfast.reference.timesteps import timestep_embedding
from marfast.verifying.case import fill

C, D, W = 6, 20, 24
"""Channels, condition and width."""


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class Time(nn.Module):
    def __init__(self, scale: float = 1.0, bias: bool = True):
        super().__init__()
        self.scale = scale
        self.mlp = nn.Sequential(nn.Linear(16, W, bias), nn.SiLU(), nn.Linear(W, W, bias))

    def forward(self, t: Tensor) -> Tensor:
        weight = self.mlp[0].weight
        return self.mlp(timestep_embedding(self.scale * t, 16).to(weight.dtype))


class MarBlock(nn.Module):
    """MAR's, whose MLP may be another."""

    def __init__(self, mlp: nn.Module):
        super().__init__()
        self.in_ln, self.mlp = nn.LayerNorm(W, eps=1e-6), mlp
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(W, 3 * W))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, -1)
        return x + gate * self.mlp(modulated(self.in_ln(x), shift, scale))


class MarFinal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(W, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(W, C)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(W, 2 * W))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(y).chunk(2, -1)
        return self.linear(modulated(self.norm_final(x), shift, scale))


class Mlp(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(W, 2 * W), nn.SiLU(), nn.Linear(2 * W, W))


class VelocityNet(nn.Module):
    """NextStep-1's, and with other MLPs and times Ming-UniVision's."""

    def __init__(self, mlp: Callable[[], nn.Module] = Mlp, time_scale: float = 1.0):
        super().__init__()
        self.time_embed = Time(time_scale)
        self.cond_embed, self.input_proj = nn.Linear(D, W), nn.Linear(C, W)
        self.res_blocks = nn.ModuleList(MarBlock(mlp()) for _ in range(2))
        self.final_layer = MarFinal()

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        x, y = self.input_proj(x), self.time_embed(t) + self.cond_embed(c)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)


def guided(v: Tensor, *scales: float) -> Tensor:
    """Rows of two branches, or of three in NextStep-1's order."""
    if len(scales) == 1:
        c, u = v.chunk(2)
        return u + scales[0] * (c - u)
    c, u1, u2 = v.chunk(3)
    return u2 + scales[1] * (u1 - u2) + scales[0] * (c - u1)


def euler_maruyama(x: Tensor, v: Tensor, t: Tensor, dt: Tensor | float, n: Tensor) -> Tensor:
    score = (t * v - x) / ((1 - t) ** 2 + t * (1 - t))
    return x + (v + (1 - t) * score) * dt + (2 * (1 - t) * dt) ** 0.5 * n


def made(kind: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """With parameters of a sensible scale, in eval mode."""
    return fill(kind(*args, **options)).eval().requires_grad_(False)
