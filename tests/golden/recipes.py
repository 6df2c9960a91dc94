"""The cases whose results are kept as golden values: those of `marfast verify --original` that come
out alike on every machine, a hash of the weights that they run with, and DDIM's loop."""

import hashlib
from functools import partial

import torch
from torch import Tensor

from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.samplers import table_of
from marfast.verifying import cases
from marfast.verifying.case import (
    Case,
    Implementation,
    Result,
    generator_states,
    numbers,
    seed_all,
)
from marfast.verifying.cases.models import VARIANTS, tiny

# cost, size and rounding
LEFT_OUT = ("true widths", "names and shapes", "bf16", "autoencoder, initial weights")
LARGE = ("L=256, 8 values", "L=49, 49 values", "1000 steps", "100 steps, guidance", "KL-16")


def weights(name: str, implementation: Implementation) -> Result:
    digest = hashlib.sha256()
    for parameter, value in tiny(implementation, **VARIANTS[name]).state_dict().items():
        digest.update(parameter.encode() + value.numpy().tobytes())
    return {"sha256": digest.hexdigest()}


def ddim(eta: float, clip: bool, implementation: Implementation) -> Result:
    """The original's loop, or ours by a table, whose sums are others: near, and not to the bit."""
    process, start = implementation.create_diffusion("ddim50"), numbers(6, 8, seed=1)
    mix = numbers(8, 16, seed=2, scale=0.4)

    def head(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x @ mix) + t[:, None] / 1000

    seed_all(3)
    if hasattr(process, "ddim_sample_loop"):
        options = {"clip_denoised": clip, "eta": eta, "device": "cpu"}
        sample = process.ddim_sample_loop(head, (6, 8), start, **options)
    else:
        sample, table = start, table_of(process, "ddim", eta)
        options = HeadOptions(clip_denoised=clip, learned_range=False)
        for row, t in zip(table.coefficients, table.timesteps, strict=True):
            noise, output = torch.randn_like(sample), head(sample, t.expand(6))
            sample = ddpm_step(sample, output, noise, row, torch.ones(1), options)
    return {"sample": sample} | generator_states()


def all_cases() -> list[Case]:
    kept = [
        case
        for case in cases.all_cases()
        if not any(part in f"{case.what}, {case.name}" for part in (*LEFT_OUT, *LARGE))
    ]
    ours = [Case("weights", name, partial(weights, name)) for name in VARIANTS]
    for eta, clip in ((0.0, False), (0.0, True), (0.5, False), (1.0, True)):
        ours.append(Case("DDIM", f"eta {eta}{', clipped' * clip}", partial(ddim, eta, clip)))
    return ours + kept
