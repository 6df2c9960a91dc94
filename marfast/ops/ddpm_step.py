"""`ddpm_step`: guidance, learned-range variance, posterior mean and noise in one pass."""

from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks, cuda, native
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import diffusion

_HALF = (torch.bfloat16, torch.float16)


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
    return _OP(x, model_output, noise, coefficients, guidance, temperature, clip_denoised)


def _check(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
) -> None:
    tokens, channels = checks.first("x", x, "N, C", (torch.float32, torch.float64))
    rows = model_output.shape[0] if model_output.dim() else 0
    if rows != tokens and rows != 2 * tokens:
        raise ValueError(
            f"model_output has {rows} rows; it must have N = {tokens} (x's rows), "
            f"or 2N = {2 * tokens} under guidance"
        )
    own = (x.dtype,)
    checks.like("model_output", model_output, "R, 2C", (rows, 2 * channels), (x.dtype, *_HALF), x)
    checks.like("noise", noise, "N, C", (tokens, channels), own, x)
    checks.like("coefficients", coefficients, "7", (7,), own, x)
    checks.like("guidance", guidance, "1", (1,), own, x)


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """64 tokens of 16 channels, guided, halfway through 100 steps; dtype is model_output's."""
    tokens, channels = 64, 16
    source = generator.device
    draw = torch.randn(4, tokens, channels, generator=generator, device=source)
    v = torch.rand(2 * tokens, channels, generator=generator, device=source) * 2 - 1
    model_output = torch.cat([draw[2:].reshape(2 * tokens, channels), v], dim=1)
    process = diffusion.GaussianDiffusion(diffusion.space_timesteps(1000, "100"))
    coefficients, _ = process.sampling_schedule()
    return (
        draw[0].to(device),
        model_output.to(device, dtype),
        draw[1].to(device),
        coefficients[50].to(device),
        torch.tensor([2.9], device=device),
        1.0,
        True,
    )


def _can_run_cpu(x: Tensor, *_: Any) -> Verdict:
    return native.can_run({"x": x})


def _run_cpu(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
) -> Tensor:
    tokens, channels = x.shape
    x, model_output, noise = native.rows(x), native.rows(model_output), native.rows(noise)
    coefficients = native.rows(coefficients)
    out = x.new_empty((tokens, channels))
    native.extension().ddpm_step(
        out.data_ptr(),
        x.data_ptr(),
        model_output.data_ptr(),
        noise.data_ptr(),
        coefficients.data_ptr(),
        guidance.data_ptr(),
        tokens,
        channels,
        x.stride(0),
        model_output.stride(0),
        noise.stride(0),
        native.DTYPE_CODES[model_output.dtype],
        model_output.shape[0] != tokens,
        temperature,
        clip_denoised,
    )
    return out


def _can_run_cuda(x: Tensor, *_: Any) -> Verdict:
    return cuda.can_run({"x": x})


def _run_cuda(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
) -> Tensor:
    tokens, channels = x.shape
    x, model_output, noise = native.rows(x), native.rows(model_output), native.rows(noise)
    coefficients = native.rows(coefficients)
    out = x.new_empty((tokens, channels))
    pointers = (out, x, model_output, noise, coefficients, guidance)
    cuda.call(
        *("ddpm_step", x.device),
        *(tensor.data_ptr() for tensor in pointers),
        *(tokens, channels, x.stride(0), model_output.stride(0), noise.stride(0)),
        cuda.code(model_output.dtype),
        model_output.shape[0] != tokens,
        temperature,
        clip_denoised,
    )
    return out


_OP = Op(
    "ddpm_step(Tensor x, Tensor model_output, Tensor noise, Tensor coefficients, Tensor guidance, "
    "float temperature=1.0, bool clip_denoised=False) -> Tensor",
    check=_check,
    fake=_fake,
    reference=diffusion.ddpm_step,
    example=_example,
    backends=[
        Backend("cuda", _can_run_cuda, _run_cuda, on_request=True),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
)
