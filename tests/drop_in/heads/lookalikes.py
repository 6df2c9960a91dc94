"""Small modules that are named and built as other models' heads are, with their sampling loops."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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


class MingMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(W, 4 * W), nn.Linear(2 * W, W)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


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


class NextStep(nn.Module):
    input_dim = C

    def __init__(self) -> None:
        super().__init__()
        self.net = VelocityNet()

    @torch.no_grad()
    def sample(
        self, c, cfg=1.0, cfg2=1.0, timesteps_shift=1.0, num_sampling_steps=20,
        last_step_size=0.04, noise_repeat=1,
    ):  # fmt: skip
        branches = 1 + (cfg > 1.0) + (cfg2 > 1.0)
        copies = len(c) // branches // noise_repeat

        def noise() -> Tensor:
            return torch.randn(noise_repeat, C, dtype=torch.float32).repeat(copies, 1)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            rows = x.repeat(branches, 1).to(c.dtype)
            v = self.net(rows, t.expand(len(c)).to(c), c).float()
            return guided(v, *(cfg, cfg2)[: branches - 1]) if branches > 1 else v

        times = torch.linspace(0, 1 - last_step_size, num_sampling_steps)
        times = times / (timesteps_shift - (timesteps_shift - 1) * times)
        x = noise()
        for t, after in itertools.pairwise(times):
            x = euler_maruyama(x, velocity(x, t), t, after - t, noise())
        return (x + velocity(x, times[-1]) * last_step_size).to(c.dtype)


class OmniNextStep(nn.Module):
    input_dim = C

    def __init__(self) -> None:
        super().__init__()
        self.net = VelocityNet()

    @torch.no_grad()
    def sample(
        self, c, cfg=1.0, cfg_img=1.0, cfg_mult=None, timesteps_shift=1.0, num_sampling_steps=20,
        last_step_size=0.0, noise_repeat=1,
    ):  # fmt: skip
        branches = cfg_mult or 1 + (cfg > 1.0) + (cfg_img > 1.0)
        copies = len(c) // branches // noise_repeat
        times = torch.linspace(0, 1, num_sampling_steps + 1)[:-1]
        times = times / (timesteps_shift - (timesteps_shift - 1) * times)
        times = torch.cat([times, torch.ones(1)])
        x = torch.randn(noise_repeat, C).repeat(copies, 1)
        for t, after in itertools.pairwise(times):
            v = self.net(x.repeat(branches, 1).to(c.dtype), t.expand(len(c)).to(c), c).float()
            v = guided(v, *(cfg, cfg_img)[: branches - 1]) if branches > 1 else v
            n = torch.randn(noise_repeat, C).repeat(copies, 1)
            x = euler_maruyama(x, v, t, after - t, n)
        return x.to(c.dtype)


class SphereBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(W, eps=1e-6)
        self.w1, self.w2 = nn.Linear(W, 3 * W), nn.Linear(3 * W // 2, W)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        h, value = self.w1(modulated(self.norm(x), shift, scale)).chunk(2, -1)
        return x + gate * self.w2(F.silu(h) * value)


class SphereFinal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(W, eps=1e-6, elementwise_affine=False)
        self.ada_ln_modulation, self.linear = nn.Linear(W, 2 * W), nn.Linear(W, C)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale, shift = self.ada_ln_modulation(y).chunk(2, -1)
        return self.linear(modulated(self.norm_final(x), shift, scale))


class SphereNet(nn.Module):
    ada_ln_switch_freq = 2

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = Time(1000.0)
        self.cond_embed, self.input_proj = nn.Linear(D, W), nn.Linear(C, W)
        self.res_blocks = nn.ModuleList(SphereBlock() for _ in range(4))
        self.ada_ln_blocks = nn.ModuleList(nn.Linear(W, 3 * W) for _ in range(2))
        self.final_layer = SphereFinal()

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        x, y = self.input_proj(x), F.silu(self.time_embed(t) + self.cond_embed(c))
        for i, block in enumerate(self.res_blocks):
            parts = self.ada_ln_blocks[i // self.ada_ln_switch_freq](y).chunk(3, -1)
            x = block(x, *parts)
        return self.final_layer(x, y)


class Sphere(nn.Module):
    ch_target, last = C, 0.04

    def __init__(self) -> None:
        super().__init__()
        self.net = SphereNet()

    def steps(self, count: int) -> list[float]:
        return [(1.0 - self.last) / count] * count

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return output

    def sample(self, z, cfg, num_sampling_steps):
        branches = 1 + (cfg > 1.0)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            rows = x.repeat(branches, 1)
            v = self.velocity(self.net.forward(rows, t.expand(len(z)), z), rows, t)
            return guided(v, cfg) if branches > 1 else v

        x, t = torch.randn(len(z) // branches, C), torch.zeros(())
        for dt in self.steps(num_sampling_steps):
            x = euler_maruyama(x, velocity(x, t), t, dt, torch.randn_like(x))
            t += dt
        x = x + velocity(x, torch.tensor(1 - self.last)) * self.last
        return x.repeat(branches, 1)


class BitDance(Sphere):
    last = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.time_shift = 0.5

    def steps(self, count: int) -> list[float]:
        even = torch.linspace(0, 1 - self.last, count + 1)
        times = (1 / self.time_shift) / (1 / self.time_shift + (1 / even - 1))
        return [*(times[1:] - times[:-1])]

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return (output - x) / (1 - t).clamp_min(0.05)


class Ming(nn.Module):
    in_channels, num_sampling_steps = C, 5

    def __init__(self) -> None:
        super().__init__()
        self.net = VelocityNet(MingMlp, 1000.0)

    def sample(
        self, z, temperature=1.0, text_cfg=1.0, image_cfg=1.0, cfg_renorm_type=None,
        time_shifting_factor=None,
    ):  # fmt: skip
        rows = len(z)
        x = torch.randn(1 if text_cfg != 1.0 else rows, C).expand(rows, C) * temperature
        times = torch.linspace(0.0, 1.0, self.num_sampling_steps + 1)
        if time_shifting_factor:
            s = float(time_shifting_factor)
            times = times / (times + s - s * times)
        times = 1 - times
        for t, after in itertools.pairwise(times):
            with torch.no_grad():
                c, *u = self.net(x[:1].expand(rows, C), t.expand(rows), z).split(1)
            v = u[0] + text_cfg * (c - u[0])
            if rows == 3:
                v = u[0] + image_cfg * (u[1] - u[0]) + text_cfg * (c - u[1])
            if cfg_renorm_type == "channel":
                v = v * (c.norm() / v.norm()).clamp(max=1.0)
            x = x + v * (t - after)
        return x


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


def made(kind: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """With parameters of a sensible scale, in eval mode."""
    return fill(kind(*args, **options)).eval().requires_grad_(False)
