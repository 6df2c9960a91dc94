"""SphereAR's DiffHead, and BitDance's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.drop_in.heads.lookalikes.parts import C, D, Time, W, euler_maruyama, guided, modulated


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
