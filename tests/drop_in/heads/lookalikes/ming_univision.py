"""Ming-UniVision's RectifiedFlowLoss."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.drop_in.heads.lookalikes.parts import C, VelocityNet, W


class MingMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(W, 4 * W), nn.Linear(2 * W, W)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


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
