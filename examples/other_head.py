"""A head that marfast has never seen, sampled by its kernels.

    python examples/other_head.py --width 1024 --depth 4

The model's own code is plain PyTorch: RMSNorm, SwiGLU, no biases, a velocity as its only output,
and Euler's steps from noise to data. What marfast has to be told is a `HeadSpec`, and where each
tensor lies (docs/heads.md). Prints how far the two's tokens lie apart, and how long both took.
"""

import argparse
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marfast import ops
from marfast.reference import HeadSpec
from marfast.reference.head_weights import layout
from marfast.reference.samplers import ddim, flow_levels
from marfast.reference.timesteps import timestep_embedding

CHANNELS, CONDITION, FREQUENCIES = 64, 512, 256


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)
        self.modulation = nn.Linear(width, 3 * width, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(F.silu(y)).chunk(3, dim=-1)
        first, second = self.up(self.norm(x) * (1 + scale) + shift).chunk(2, dim=-1)
        return x + gate * self.down(F.silu(first) * second)


class VelocityHead(nn.Module):
    """x [N, C], t [N] from 0 (noise) to 1 (data), cond [N, D] -> velocity [N, C]."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.time_in = nn.Linear(FREQUENCIES, width, bias=False)
        self.time_out = nn.Linear(width, width, bias=False)
        self.cond = nn.Linear(CONDITION, width, bias=False)
        self.input = nn.Linear(CHANNELS, width, bias=False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, CHANNELS, bias=False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        times = F.silu(self.time_in(timestep_embedding(1000 * t, FREQUENCIES)))
        x, y = self.input(x), self.time_out(times) + self.cond(cond)
        for block in self.blocks:
            x = block(x, y)
        shift, scale = self.modulation(F.silu(y)).chunk(2, dim=-1)
        return self.output(self.norm(x) * (1 + scale) + shift)

    def sample(self, noise: Tensor, cond: Tensor, steps: int) -> Tensor:
        x = noise
        for i in range(steps):
            x = x + self(x, torch.full((len(x),), i / steps), cond) / steps
        return x


SPEC = HeadSpec(norm="rms", activation="swiglu", bias=False, variance=False, time_scale=1000)


def weights_of(head: VelocityHead) -> list[Tensor]:
    """In the order of SPEC, by the names that marfast has for them."""
    named: dict[str, nn.Module] = {
        "time_embed.mlp.0": head.time_in,
        "time_embed.mlp.2": head.time_out,
        "cond_embed": head.cond,
        "input_proj": head.input,
        "final_layer.linear": head.output,
        "final_layer.adaLN_modulation.1": head.modulation,
    }
    for i, block in enumerate(head.blocks):
        named |= {
            f"res_blocks.{i}.in_ln": block.norm,
            f"res_blocks.{i}.mlp.0": block.up,
            f"res_blocks.{i}.mlp.2": block.down,
            f"res_blocks.{i}.adaLN_modulation.1": block.modulation,
        }
    order = layout(SPEC, len(head.blocks))
    return [named[name.removesuffix(".weight")].weight.detach() for name, _ in order]


class FastSampler:
    """The head's `sample`, by one op."""

    def __init__(self, head: VelocityHead, steps: int):
        self.weights = weights_of(head)
        self.packed = ops.pack_head(self.weights, spec=str(SPEC))  # once, for the CPU's kernels
        self.table = ddim(flow_levels([i / steps for i in range(steps + 1)]), prediction="velocity")

    def __call__(self, noise: Tensor, cond: Tensor) -> Tensor:
        table, no_noise = self.table, noise.new_zeros(len(self.table.timesteps), *noise.shape)
        return ops.ddpm_sample(
            noise, no_noise, cond, self.weights, table.coefficients, table.timesteps,
            torch.ones(1), packed=self.packed, learned_range=False, spec=str(SPEC),
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=8)
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    head = VelocityHead(options.width, options.depth)
    fast = FastSampler(head, options.steps)
    noise, cond = torch.randn(options.tokens, CHANNELS), torch.randn(options.tokens, CONDITION)
    seconds = []
    tokens = []
    for sample in (lambda: head.sample(noise, cond, options.steps), lambda: fast(noise, cond)):
        start = time.perf_counter()
        tokens.append(sample())
        seconds.append(time.perf_counter() - start)
    own, ours = tokens
    print(f"largest difference {(own - ours).abs().max() / own.abs().max():.1e} of the scale")
    print(f"its own code {seconds[0]:.3f} s, marfast {seconds[1]:.3f} s")


if __name__ == "__main__":
    main()
