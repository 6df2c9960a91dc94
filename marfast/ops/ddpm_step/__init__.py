"""`ddpm_step`: guidance, learned-range variance, posterior mean and noise in one pass."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.head import options_of
from marfast.ops.op import Args, Draw, op
from marfast.reference import diffusion
from marfast.reference.diffusion import HeadOptions


class Step(NamedTuple):
    """What one step reads, as the op's arguments; x may be the first N rows of what it fills."""

    x: Tensor
    model_output: Tensor
    noise: Tensor
    coefficients: Tensor
    guidance: Tensor
    options: HeadOptions


@op(backends=("cuda", "triton", "cpu"))
def ddpm_step(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    temperature: float = 1.0,
    clip_denoised: bool = False,
) -> Tensor:
    """One guided denoising step of N tokens: x_t -> x_{t-1}.

    Args:
        x: [N, C] float32 (float64: plain PyTorch only).
        model_output: [R, 2C], the head's ε and v; R = N, or 2N under guidance (conditional rows
            first). x's dtype, bfloat16 or float16.
        noise: [N, C], x's dtype.
        coefficients: [7], x's dtype: one row of `GaussianDiffusion.sampling_schedule`.
        guidance: [1], x's dtype: ε_u + guidance (ε_c - ε_u); read only when R = 2N.
        temperature: scales the noise.
        clip_denoised: clamp x_0 to [-1, 1].

    Returns:
        [N, C], x's dtype. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), as MAR (arXiv 2406.11838) samples its tokens.
    """


def step_of(a: Args) -> Step:
    options = options_of(a, guided=a.model_output.shape[0] != a.x.shape[0])
    return Step(a.x, a.model_output, a.noise, a.coefficients, a.guidance, options)


@ddpm_step.check
def _check(a: Args) -> None:
    tokens, channels = checks.first("x", a.x, "N, C", (torch.float32, torch.float64))
    rows = a.model_output.shape[0] if a.model_output.dim() else 0
    if rows != tokens and rows != 2 * tokens:
        raise ValueError(
            f"model_output has {rows} rows; it must have N = {tokens} (x's rows), "
            f"or 2N = {2 * tokens} under guidance"
        )
    own, outputs = (a.x.dtype,), (a.x.dtype, torch.bfloat16, torch.float16)
    checks.like("model_output", a.model_output, "R, 2C", (rows, 2 * channels), outputs, a.x)
    checks.like("noise", a.noise, "N, C", (tokens, channels), own, a.x)
    checks.like("coefficients", a.coefficients, "7", (7,), own, a.x)
    checks.like("guidance", a.guidance, "1", (1,), own, a.x)


@ddpm_step.fake
def _fake(a: Args) -> Tensor:
    return torch.empty(a.x.shape, dtype=a.x.dtype, device=a.x.device)


@ddpm_step.reference
def _reference(a: Args) -> Tensor:
    return diffusion.ddpm_step(**step_of(a)._asdict())


@ddpm_step.example
def _example(draw: Draw) -> dict[str, Any]:
    """64 tokens of 16 channels, guided, halfway through 100 steps; dtype is model_output's."""
    tokens, channels = 64, 16
    process = diffusion.GaussianDiffusion(diffusion.space_timesteps(1000, "100"))
    coefficients, _ = process.sampling_schedule()
    eps, v = draw.normal(2, 2 * tokens, channels)
    return {
        "x": draw.normal(tokens, channels),
        "model_output": torch.cat([eps, v.tanh()], dim=1).to(draw.dtype),
        "noise": draw.normal(tokens, channels),
        "coefficients": coefficients[50].to(draw.device),
        "guidance": torch.tensor([2.9], dtype=torch.float32, device=draw.device),
        "clip_denoised": True,
    }
