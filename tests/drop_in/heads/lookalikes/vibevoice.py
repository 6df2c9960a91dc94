"""VibeVoice's prediction head, its scheduler, and what samples by both."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.drop_in.heads.lookalikes.parts import C, D, Time, W, guided, modulated


class Rms(nn.Module):
    def __init__(self, affine: bool = True):
        super().__init__()
        self.eps = 1e-4
        self.register_parameter("weight", nn.Parameter(torch.ones(W)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        normed = x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return normed if self.weight is None else normed * self.weight


class VibeFfn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(W, 3 * W, bias=False)
        self.up_proj = nn.Linear(W, 3 * W, bias=False)
        self.down_proj = nn.Linear(3 * W, W, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class VibeBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ffn, self.norm = VibeFfn(), Rms()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(W, 3 * W, bias=False))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, -1)
        return x + gate * self.ffn(modulated(self.norm(x), shift, scale))


class VibeFinal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_final, self.linear = Rms(affine=False), nn.Linear(W, C, bias=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(W, 2 * W, bias=False))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(y).chunk(2, -1)
        return self.linear(modulated(self.norm_final(x), shift, scale))


class VibeHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.noisy_images_proj = nn.Linear(C, W, bias=False)
        self.cond_proj = nn.Linear(D, W, bias=False)
        self.t_embedder = Time(bias=False)
        self.layers = nn.ModuleList(VibeBlock() for _ in range(2))
        self.final_layer = VibeFinal()

    def forward(self, noisy_images: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        x, y = self.noisy_images_proj(noisy_images), self.t_embedder(timesteps)
        y = y + self.cond_proj(condition)
        for layer in self.layers:
            x = layer(x, y)
        return self.final_layer(x, y)


class Scheduler:
    """DPM-Solver++(2M) with the attributes of diffusers' scheduler."""

    def __init__(self, stochastic: bool = False):
        kind = "sde-dpmsolver++" if stochastic else "dpmsolver++"
        self.config = Config(algorithm_type=kind, prediction_type="v_prediction")
        self.stochastic = stochastic
        angle = (torch.arange(1000).double() + 1) / 1001 * math.pi / 2
        self.ratios = angle.tan().float()

    def set_timesteps(self, count: int) -> None:
        self.timesteps = torch.from_numpy(np.linspace(0, 999, count + 1).round()[::-1][:-1].copy())
        self.timesteps = self.timesteps.long()
        self.sigmas = torch.cat([self.ratios[self.timesteps], torch.zeros(1)])
        self.index, self.before = 0, None

    def step(self, v: Tensor, x: Tensor) -> Tensor:
        def levels(i: int) -> tuple[float, float]:
            ratio = float(self.sigmas[i])
            alpha = (1 + ratio * ratio) ** -0.5
            return alpha, ratio * alpha

        (a, s), (a_next, s_next) = levels(self.index), levels(self.index + 1)
        x0 = a * x - s * v
        decay = a * s_next / (s * a_next)
        mixed = x0
        if self.before is not None and s_next:
            (a_last, s_last), h = levels(self.index - 1), -math.log(decay)
            r = math.log(a / s * s_last / a_last) / h
            mixed = x0 + (x0 - self.before) / (2 * r)
        if self.stochastic:
            noise = torch.randn(x.shape)
            x = s_next / s * decay * x + a_next * (1 - decay**2) * mixed
            x = x + s_next * (1 - decay**2) ** 0.5 * noise
        else:
            x = s_next / s * x + a_next * (1 - decay) * mixed
        self.index, self.before = self.index + 1, x0
        return x


class Config(dict):  # type: ignore[type-arg]
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Vibe(nn.Module):
    def __init__(self, stochastic: bool = False):
        super().__init__()
        self.model = nn.Module()
        self.model.prediction_head = VibeHead()
        self.model.noise_scheduler = Scheduler(stochastic)
        self.model.language_model = nn.Linear(3, 3)
        self.config = SimpleNamespace(acoustic_vae_dim=C)
        self.ddpm_inference_steps = 6

    @torch.no_grad()
    def sample_speech_tokens(self, condition, neg_condition, cfg_scale=3.0):
        scheduler = self.model.noise_scheduler
        scheduler.set_timesteps(self.ddpm_inference_steps)
        cond = torch.cat([condition, neg_condition])
        x = torch.randn(len(cond), C).to(cond)
        for t in scheduler.timesteps:
            rows = x[: len(x) // 2].repeat(2, 1)
            v = self.model.prediction_head(rows, t.repeat(len(cond)).to(cond), condition=cond)
            v = guided(v, cfg_scale)
            x = scheduler.step(v.repeat(2, 1), x)
        return x[: len(x) // 2]
