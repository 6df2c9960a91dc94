"""`ddpm_step`: guidance, x_0, mean and noise of one sampling step in one pass, for any sampler."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.head import branches_of, check_threshold, options_of
from marfast.ops.op import Args, Draw, op
from marfast.reference import diffusion, samplers
from marfast.reference.diffusion import HeadOptions
from marfast.reference.samplers import COLUMNS


class Step(NamedTuple):
    """What one step reads, as kernels take it; x may be the first N rows of what it fills."""

    x: Tensor
    model_output: Tensor
    noise: Tensor
    coefficients: Tensor
    guidance: Tensor
    options: HeadOptions
    x0: Tensor | None = None
    """[N, C], dense: x_0 of the step before, which this step's replaces; None: not needed."""


@op(backends=("cuda", "triton", "cpu"))
def ddpm_step(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    temperature: float = 1.0,
    clip_denoised: bool = False,
    learned_range: bool = True,
    dynamic_threshold: float = 0.0,
) -> Tensor:
    """One guided denoising step of N tokens, x_t -> x_{t-1}, of the sampler whose table it reads.

    Args:
        x: [N, C] float32 (float64: plain PyTorch only); or [2, N, C], x and the x_0 of the step
            before, for a multistep sampler.
        model_output: [R, 2C], the head's output (ε, or what p and q take) and v; or [R, C], no v,
            where the range isn't learned. R = N, or 2N under guidance (conditional rows first), or
            3N of guidance with two scales. x's dtype, bfloat16 or float16.
        noise: [N, C], x's dtype.
        coefficients: [8], x's dtype: one row of a table of `marfast.reference.samplers`.
        guidance: [1], x's dtype: ε_u + guidance (ε_c - ε_u); read only when R = 2N. When R = 3N,
            [2]: (ε_u₂ + guidance₂ (ε_u₁ - ε_u₂)) + guidance₁ (ε_c - ε_u₁).
        temperature: scales the noise.
        clip_denoised: clamp x_0 to [-1, 1].
        learned_range: σ is exp of v's share between the table's log β and log β̃, as DDPM has it;
            else the table's own.
        dynamic_threshold: where it isn't 0, x_0 of each token is clamped to ±s and divided by s,
            the larger of 1 and this quantile (to 1) of its |x_0|; not with clip_denoised.

    Returns:
        [N, C], x's dtype; or [2, N, C]: that, and this step's x_0. docs/numerics.md has the order
        of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape, device or quantile that is not allowed.

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), as MAR (arXiv 2406.11838) samples its tokens;
    docs/samplers.md has the others.
    """


def branches(a: Args) -> int:
    """Rows of `model_output` for each token."""
    tokens = a.x.shape[-2]
    return a.model_output.shape[0] // tokens if tokens else 1


def rows_of(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """x [N, C] itself, and the x_0 of the step before where it is [2, N, C]."""
    return (x[0], x[1]) if x.dim() == 3 else (x, None)


def step_of(a: Args) -> Step:
    """As kernels take it; what is to hold x_0 is the caller's to give."""
    x, _ = rows_of(a.x)
    options = options_of(a, branches(a))
    output = a.model_output if options.learned_range else a.model_output[:, : x.shape[1]]
    return Step(x, output, a.noise, a.coefficients, a.guidance, options)


def result_for(x: Tensor) -> Tensor:
    """Memory as x's, to be filled; it has the x_0 of the step before, which kernels replace."""
    out = x.new_empty(x.shape)
    if x.dim() == 3:
        out[1] = x[1]
    return out


def filled(a: Args, launch: Callable[[Tensor, Step], None]) -> Tensor:
    """The op's result, by what fills `out` [N, C] and replaces the step's x_0."""
    result = result_for(a.x)
    out, x0 = rows_of(result)
    launch(out, step_of(a)._replace(x0=x0))
    return result


@ddpm_step.check
def _check(a: Args) -> None:
    check_threshold(a)
    letters, allowed = "N, C", (torch.float32, torch.float64)
    if a.x.dim() == 3:
        letters = "2, N, C"
        checks.like("x", a.x, letters, (2, *a.x.shape[1:]), (a.x.dtype,), a.x)
    *_, tokens, channels = checks.first("x", a.x, letters, allowed)
    rows = a.model_output.shape[0] if a.model_output.dim() else 0
    scales = max(1, branches_of("model_output", rows, tokens) - 1)
    own, outputs = (a.x.dtype,), (a.x.dtype, torch.bfloat16, torch.float16)
    if a.learned_range or a.model_output.shape != (rows, channels):
        checks.like("model_output", a.model_output, "R, 2C", (rows, 2 * channels), outputs, a.x)
    else:
        checks.like("model_output", a.model_output, "R, C", (rows, channels), outputs, a.x)
    checks.like("noise", a.noise, "N, C", (tokens, channels), own, a.x)
    checks.like("coefficients", a.coefficients, str(COLUMNS), (COLUMNS,), own, a.x)
    checks.like("guidance", a.guidance, str(scales), (scales,), own, a.x)


@ddpm_step.fake
def _fake(a: Args) -> Tensor:
    return torch.empty(a.x.shape, dtype=a.x.dtype, device=a.x.device)


@ddpm_step.reference
def _reference(a: Args) -> Tensor:
    step = step_of(a)
    tensors = (step.model_output, step.noise, step.coefficients, step.guidance)
    return diffusion.ddpm_step(a.x, *tensors, step.options)


@ddpm_step.example
def _example(draw: Draw) -> dict[str, Any]:
    """64 tokens of 16 channels, guided, halfway through 100 steps; dtype is model_output's."""
    tokens, channels = 64, 16
    process = diffusion.create_diffusion("100")
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


@ddpm_step.another_example("multistep")
def _multistep(draw: Draw) -> dict[str, Any]:
    """A step of DPM-Solver++'s SDE, which reads the x_0 of the step before; no variance."""
    example = _example(draw)
    x, output = example["x"], example["model_output"]
    table = samplers.table_of(diffusion.create_diffusion("100"), "dpm++2m-sde")
    return example | {
        "x": torch.stack([x, draw.normal(*x.shape)]),
        "model_output": output[:, : x.shape[1]],
        "coefficients": table.coefficients[50].to(draw.device),
        "learned_range": False,
    }


@ddpm_step.another_example("thresholded")
def _thresholded(draw: Draw) -> dict[str, Any]:
    return _example(draw) | {"clip_denoised": False, "dynamic_threshold": 0.9}
