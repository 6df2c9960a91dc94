"""NextStep-1's FlowMatchingHead: stepfun-ai's loop and vLLM-Omni's."""

import itertools

import torch
from torch import Tensor, nn

from tests.drop_in.heads.lookalikes.parts import C, VelocityNet, euler_maruyama, guided


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
