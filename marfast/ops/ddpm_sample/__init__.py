"""`ddpm_sample`: all denoising steps of the per-token head, as one op."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.head import HeadShape, branches_of, check_threshold, options_of, spec_of
from marfast.ops.op import Args, Draw, op
from marfast.reference import denoise, diffusion, samplers
from marfast.reference.diffusion import HeadOptions
from marfast.reference.samplers import COLUMNS


@op(backends=("cuda", "triton", "cpu", "torch"), differentiable=False)
def ddpm_sample(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    temperature: float = 1.0,
    clip_denoised: bool = False,
    packed: Tensor | None = None,
    learned_range: bool = True,
    spec: str = "",
    dynamic_threshold: float = 0.0,
) -> Tensor:
    """N tokens from their condition vectors: the S denoising steps of the per-token head, by the
    sampler whose table is given.

    Args:
        noise: [N, C] float32, the initial noise; or [2, N, C], x and the x_0 of the step before,
            for a multistep sampler (before the first step any numbers).
        step_noise: [S, N, C] float32, each step's noise.
        cond: [R, D] float32, the condition vectors z; R = N, or 2N under guidance (conditional rows
            first), or 3N of guidance with two scales.
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order, or those of a
            `reference.Head` of the spec; noise's dtype, bfloat16 or float16. With bfloat16, what
            enters a product is rounded to it, too; all else (sums, norms, activations, the residual
            stream, the update) stays float32.
        schedule: [S, 8] float32, and
        timesteps: [S] int64 (float32 of a flow), a `samplers.Table`'s, or DDPM's as
            `reference.GaussianDiffusion.sampling_schedule` gives them; [S, times] of a spec with
            several.
        guidance: [1] float32, the guidance scale, or [S], of each step; read only when R = 2N. When
            R = 3N, the two scales, [1, 2] or [S, 2]: (u₂ + s₂ (u₁ - u₂)) + s₁ (c - u₁).
        temperature: scales the step noise.
        clip_denoised: clamp x_0 to [-1, 1] in each step.
        packed: `ops.pack_head(weights, spec=spec)`, to save packing them in each call.
        learned_range: σ is the head's, within the table's range; else the table's. A spec without
            variance has none.
        spec: `str(reference.HeadSpec(...))`; empty: MAR's.
        dynamic_threshold: where it isn't 0, x_0 of each token is clamped to ±s and divided by s,
            the larger of 1 and this quantile (to 1) of its |x_0|; not with clip_denoised.

    Returns:
        As noise, after the last step. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape, device or quantile that is not allowed.

    Source: MAR (arXiv 2406.11838), section 3.2; LTH14/mar's `DiffLoss.sample`.
    """


def options(a: Args) -> HeadOptions:
    tokens = a.noise.shape[-2]
    return options_of(a, len(a.cond) // tokens if tokens else 1)


def scales_of(a: Args) -> Tensor:
    """Guidance of each step and branch but the last, dense: [S, 1], or [S, 2]."""
    scales: Tensor = a.guidance.reshape(-1, 2 if a.guidance.dim() == 2 else 1)
    return scales.expand(len(a.schedule), -1).contiguous()


@ddpm_sample.check
def _check(a: Args) -> None:
    check_threshold(a)
    spec, noise = spec_of(a), a.noise
    shape = HeadShape.of(a.weights, spec)
    state = "2, N, C" if noise.dim() == 3 else "N, C"
    *_, tokens, _ = checks.first("noise", noise, state, (torch.float32, torch.float64))
    several = spec.times > 1
    if a.timesteps.dim() != 1 + several or len(a.timesteps) == 0:
        raise ValueError(
            f"timesteps has shape {list(a.timesteps.shape)}; it must be "
            f"[{'S, times' if several else 'S'}], at least one step"
        )
    steps, rows = len(a.timesteps), a.cond.shape[0] if a.cond.dim() else 0
    branches = branches_of("cond", rows, tokens)
    if a.learned_range and not spec.variance:
        raise ValueError(
            "learned_range: it is True, but a head without variance has no range: allowed is False"
        )
    for name, letters, sizes, dtype in (
        ("noise", state, (2, tokens, shape.channels)[3 - noise.dim() :], noise.dtype),
        ("step_noise", "S, N, C", (steps, tokens, shape.channels), noise.dtype),
        ("cond", "R, D", (rows, shape.condition), noise.dtype),
        ("schedule", f"S, {COLUMNS}", (steps, COLUMNS), noise.dtype),
    ):
        checks.like(name, getattr(a, name), letters, sizes, (dtype,), noise, "noise")
    times, told = (torch.int64, noise.dtype), (steps, spec.times)[: 1 + several]
    letters = "S, times" if several else "S"
    checks.like("timesteps", a.timesteps, letters, told, times, noise, "noise")
    of_each = steps > 1 and a.guidance.shape[:1] == (steps,)
    letters, sizes = ("S", (steps,)) if of_each else ("1", (1,))
    if branches == 3:
        letters, sizes = f"{letters}, 2", (*sizes, 2)
    checks.like("guidance", a.guidance, letters, sizes, (noise.dtype,), noise, "noise")
    checks.packed(a.packed, noise, "noise")
    first, allowed = a.weights[0], (noise.dtype, torch.bfloat16, torch.float16)
    checks.like("weights[0]", first, "outputs, inputs", first.shape, allowed, noise, "noise")


@ddpm_sample.fake
def _fake(a: Args) -> Tensor:
    return torch.empty(a.noise.shape, dtype=a.noise.dtype, device=a.noise.device)


@ddpm_sample.reference
def _reference(a: Args) -> Tensor:
    return denoise.ddpm_sample(
        a.noise,
        a.step_noise,
        a.cond,
        a.weights,
        a.schedule,
        a.timesteps,
        a.guidance,
        options(a),
        spec_of(a),
    )


@ddpm_sample.shorten
def _shorten(a: Args) -> Args:
    """Few steps, from the first to one of the last."""
    few = slice(None, None, max(1, len(a.timesteps) // 4))
    return a._replace(
        step_noise=a.step_noise[few],
        schedule=a.schedule[few],
        timesteps=a.timesteps[few],
        guidance=a.guidance[few] if len(a.guidance) > 1 else a.guidance,
    )


@ddpm_sample.example
def _example(draw: Draw) -> dict[str, Any]:
    """3 guided tokens of 16 channels, 2 blocks 96 wide, the last 5 of 10 steps (the first ones
    magnify rounding, by clipping what is near 0 after a factor of thousands); dtype is the
    weights'."""
    tokens, steps = 3, 5
    shape = HeadShape(16, condition=64, width=96, depth=2, frequencies=256, hidden=96)
    schedule, timesteps = (
        table[steps:] for table in diffusion.create_diffusion(str(2 * steps)).sampling_schedule()
    )
    return {
        "noise": draw.normal(tokens, shape.channels),
        "step_noise": draw.normal(steps, tokens, shape.channels),
        "cond": draw.normal(2 * tokens, shape.condition),
        "weights": [draw.weight(*sizes).to(draw.dtype) for sizes in shape.expected()],
        "schedule": schedule.to(draw.device),
        "timesteps": timesteps.to(draw.device),
        "guidance": torch.tensor([2.9], dtype=torch.float32, device=draw.device),
        "clip_denoised": True,
    }


@ddpm_sample.another_example("multistep, guidance of each step")
def _multistep(draw: Draw) -> dict[str, Any]:
    """The last 5 steps of DPM-Solver++'s SDE, the first of which reads the x_0 that is given."""
    example = _example(draw)
    noise, steps = example["noise"], len(example["timesteps"])
    table = samplers.table_of(diffusion.create_diffusion(str(2 * steps)), "dpm++2m-sde")
    return example | {
        "noise": torch.stack([noise, draw.normal(*noise.shape)]),
        "schedule": table.coefficients[-steps:].to(draw.device),
        "timesteps": table.timesteps[-steps:].to(draw.device),
        "guidance": torch.linspace(1.5, 2.9, steps, dtype=torch.float32, device=draw.device),
        "learned_range": False,
    }
