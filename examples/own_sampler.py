"""A sampler that marfast doesn't have, Heun's second-order method, in the place of a model's own.

    python examples/own_sampler.py --labels 0 1 2 3 --steps 25 --out heun.png

Each step asks the head twice, so no table of one update a step has it (docs/samplers.md);
`ops.denoise` is the head, by the fastest kernels that there are. The transformers go on being fast:
what is set on a module goes before what `accelerate` put there, and nothing else changes.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import marfast
from marfast import ops


class Heun:
    """A DiffLoss's `sample`, of so many steps along the probability-flow ODE."""

    def __init__(self, diffloss: Any, steps: int):
        self.channels = diffloss.in_channels
        self.clip = diffloss.clip_denoised
        self.weights = [weight.detach() for weight in diffloss.net.parameters()]
        self.packed = ops.pack_head(self.weights)  # once, for the CPU's kernels
        self.timesteps = torch.linspace(980, 0, steps).round().long()
        kept = torch.from_numpy(diffloss.train_diffusion.alphas_cumprod)[self.timesteps]
        self.sigmas = [*((1 - kept) / kept).sqrt().tolist(), 0.0]

    def __call__(self, z: Tensor, temperature: float = 1.0, cfg: float = 1.0) -> Tensor:
        """z [R, D] -> [R, C]: R = N, or 2N under guidance, of which the first N matter."""
        tokens = len(z) if cfg == 1.0 else len(z) // 2
        x = torch.randn(tokens, self.channels).to(z.device) * self.sigmas[0]
        for i, t in enumerate(self.timesteps):
            slope = self.slope(x, t, self.sigmas[i], z, cfg)
            step = self.sigmas[i + 1] - self.sigmas[i]
            there = x + step * slope
            if self.sigmas[i + 1]:
                end = self.slope(there, self.timesteps[i + 1], self.sigmas[i + 1], z, cfg)
                there = x + step * (slope + end) / 2
            x = there
        return x.repeat(len(z) // tokens, 1)

    def slope(self, x: Tensor, t: Tensor, sigma: float, z: Tensor, cfg: float) -> Tensor:
        """dx/dσ [N, C] of x = x₀ + σ ε, which is ε."""
        copies = len(z) // len(x)
        rows = (x / (1 + sigma**2) ** 0.5).repeat(copies, 1)
        out = ops.denoise(rows, t.expand(len(rows)).to(z.device), z, self.weights, self.packed)
        epsilon, *unconditional = out[:, : self.channels].chunk(copies)
        for other in unconditional:
            epsilon = other + cfg * (epsilon - other)
        if not self.clip:
            return epsilon
        return (x - (x - sigma * epsilon).clamp(-1, 1)) / sigma


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--labels", type=int, nargs="+", default=[*range(10)])
    parser.add_argument("--num-iter", type=int, default=6)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--out", required=True, help="a .png")
    options = parser.parse_args(arguments)

    mar = marfast.load("fashion-mnist").model.module  # any MAR, LTH14/mar's for example
    marfast.accelerate(mar)
    mar.diffloss.sample = Heun(mar.diffloss, options.steps)
    np.random.seed(0)
    torch.manual_seed(0)
    labels = torch.tensor(options.labels)
    with torch.no_grad():
        images = mar.sample_tokens(len(labels), options.num_iter, options.cfg, labels=labels)
    marfast.save(images.clamp(-1, 1), options.out, force=True)


if __name__ == "__main__":
    main()
