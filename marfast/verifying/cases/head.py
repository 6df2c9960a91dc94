"""The diffusion head and its sampler."""

from functools import partial
from typing import Any

import torch

from marfast.verifying.case import (
    Case,
    Implementation,
    Result,
    fill,
    generator_states,
    numbers,
    seed_all,
)

C, D = 16, 24  # channels of a token, width of its condition


def time_embedding(dim: int, max_period: float, implementation: Implementation) -> Result:
    t = torch.cat([torch.arange(0, 1000, 37), torch.tensor([999])])
    embed = implementation.timestep_embedding
    fractional = torch.tensor([0.0, 0.25, 17.5, 998.75])
    return {"whole": embed(t, dim, max_period), "fractional": embed(fractional, dim, max_period)}


def time_embedder(width: int, implementation: Implementation) -> Result:
    module = fill(implementation.time_embedder(width))
    return {"embedding": module(torch.arange(0, 1000, 111)).detach()}


def forward(
    rows: int, depth: int, width: int, cfg: Any, bf16: bool, implementation: Implementation
) -> Result:
    net = fill(implementation.net(C, width, 2 * C, D, depth))
    x, condition = numbers(rows, C, seed=1), numbers(rows, D, seed=2)
    t = torch.arange(rows) * 271 % 1000
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if cfg is None:
            return {"output": net(x, t, condition)}
        return {"output": net.forward_with_cfg(x, t, condition, cfg)}


def sample(
    options: dict[str, Any], rows: int, cfg: Any, temperature: Any, bf16: bool, impl: Implementation
) -> Result:
    defaults = {"target_channels": C, "z_channels": D, "depth": 2, "width": 40}
    diffloss = fill(impl.diffloss(**defaults | {"num_sampling_steps": "5"} | options))
    z = numbers(rows, D, seed=3)
    seed_all(4)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = diffloss.sample(z, temperature, cfg)
    return {"sample": out} | generator_states()


def _samples() -> list[Case]:
    table: list[tuple[str, dict[str, Any], int, Any, Any]] = [
        ("guidance none", {}, 6, 1.0, 1.0),
        ("one row", {}, 1, 1.0, 1.0),
        ("guidance 2.5", {}, 6, 2.5, 1.0),
        ("guidance below 1", {}, 6, 0.25, 1.0),
        ("guidance tensor 2.5", {}, 6, torch.tensor([2.5]), 1.0),
        ("guidance tensor 1", {}, 6, torch.tensor([1.0]), 1.0),
        ("temperature 0.9", {}, 6, 1.0, 0.9),
        ("temperature 0", {}, 6, 2.5, 0),
        ("clipped", {"clip_denoised": True}, 6, 1.0, 1.0),
        ("clipped, guidance, temperature", {"clip_denoised": True}, 6, 2.5, 0.95),
        ("5 channels", {"target_channels": 5}, 3, 1.0, 1.0),
        ("5 channels, guidance", {"target_channels": 5}, 6, 2.5, 1.0),
        ("2 steps", {"num_sampling_steps": "2"}, 6, 1.0, 1.0),
        ("100 steps", {"num_sampling_steps": "100"}, 4, 1.0, 1.0),
        ("100 steps, guidance", {"num_sampling_steps": "100"}, 8, 2.9, 0.98),
        ("1000 steps, clipped", {"num_sampling_steps": "", "clip_denoised": True}, 2, 1.0, 1.0),
        ("steps ddim50", {"num_sampling_steps": "ddim50"}, 4, 1.0, 1.0),
        ("steps 4,3,1", {"num_sampling_steps": "4,3,1"}, 4, 2.5, 1.0),
        ("steps 10,15,20", {"num_sampling_steps": "10,15,20"}, 4, 1.0, 1.0),
        ("12 blocks of 33", {"depth": 12, "width": 33}, 5, 1.0, 1.0),
    ]
    cases = []
    for name, options, rows, cfg, temperature in table:
        for bf16 in (False, True):
            kind = f"{name}, bf16 autocast" if bf16 else name
            run = partial(sample, options, rows, cfg, temperature, bf16)
            cases.append(Case("diffloss.sample", kind, run))
    return cases


def cases() -> list[Case]:
    table = [
        Case("time embedding", f"{dim} wide, period {period}", partial(time_embedding, dim, period))
        for dim, period in ((256, 10000), (255, 10000), (64, 100))
    ]
    for width in (40, 96):
        run = partial(time_embedder, width)
        table.append(Case("time embedding", f"embedder, width {width}", run))
    for rows, depth, width in ((1, 1, 32), (6, 3, 40), (258, 2, 33)):
        for bf16 in (False, True):
            for cfg in (None, 2.5, torch.tensor([2.5])):
                if cfg is not None and rows % 2:
                    continue
                what = "head forward" if cfg is None else "head forward_with_cfg"
                dtype = "bf16 autocast" if bf16 else "fp32"
                name = f"{rows} rows, {depth} blocks of {width}, cfg {cfg}, {dtype}"
                table.append(Case(what, name, partial(forward, rows, depth, width, cfg, bf16)))
    return table + _samples()
