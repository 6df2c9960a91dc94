"""`ddpm_sample`: the whole denoising loop of the head, all S steps for a set of tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marfast import profiling
from marfast.ops import checks, cuda, cuda_sample, native, triton_backend
from marfast.ops.head import (
    HeadShape,
    device_time_embedding,
    example_weights,
    packed_head,
    time_embedding,
)
from marfast.ops.registry import Backend, Op, Verdict
from marfast.reference import diffusion, head

PAIRS = 224
"""(step, row) pairs whose modulation is computed at once: rows enough for a tall product."""


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
) -> Tensor:
    """N tokens from their condition vectors: the S denoising steps of the per-token head.

    Args:
        noise: [N, C] float32, the initial noise.
        step_noise: [S, N, C] float32, each step's noise.
        cond: [R, D] float32, the condition vectors z; R = N, or 2N under guidance (conditional rows
            first).
        weights: the values of a `SimpleMLPAdaLN`'s state_dict, in order; noise's dtype, bfloat16 or
            float16. With bfloat16, what enters a product is rounded to it, too; all else (sums,
            LayerNorm, SiLU, the residual stream, the update) stays float32.
        schedule: [S, 7] float32, and
        timesteps: [S] int64, as `reference.GaussianDiffusion.sampling_schedule` gives them.
        guidance: [1] float32, the guidance scale; read only when R = 2N.
        temperature: scales the step noise.
        clip_denoised: clamp x_0 to [-1, 1] in each step.
        packed: `ops.pack_head(weights)`, to save packing them in each call.

    Returns:
        [N, C] float32. docs/numerics.md has the order of operations.

    Raises:
        TypeError: a dtype that is not allowed.
        ValueError: a shape or device that is not allowed.

    Source: MAR (arXiv 2406.11838), section 3.2; LTH14/mar's `DiffLoss.sample`.
    """
    return _OP(
        noise,
        step_noise,
        cond,
        list(weights),
        schedule,
        timesteps,
        guidance,
        temperature,
        clip_denoised,
        packed,
    )


def _check(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
    packed: Tensor | None,
) -> None:
    shape = HeadShape.of(weights)
    own = (torch.float32, torch.float64)
    tokens, channels = checks.first("noise", noise, "N, C", own)
    if timesteps.dim() != 1 or len(timesteps) == 0:
        raise ValueError(
            f"timesteps has shape {list(timesteps.shape)}; it must be [S], at least one step"
        )
    steps, rows = len(timesteps), cond.shape[0] if cond.dim() else 0
    if rows not in (tokens, 2 * tokens):
        raise ValueError(
            f"cond has {rows} rows; it must have N = {tokens} (noise's rows), "
            f"or 2N = {2 * tokens} under guidance"
        )
    for name, given, letters, sizes, dtype in (
        ("noise", noise, "N, C", (tokens, shape.channels), noise.dtype),
        ("step_noise", step_noise, "S, N, C", (steps, tokens, channels), noise.dtype),
        ("cond", cond, "R, D", (rows, shape.condition), noise.dtype),
        ("schedule", schedule, "S, 7", (steps, 7), noise.dtype),
        ("timesteps", timesteps, "S", (steps,), torch.int64),
        ("guidance", guidance, "1", (1,), noise.dtype),
    ):
        checks.like(name, given, letters, sizes, (dtype,), noise, reference="noise")
    checks.packed(packed, noise, "noise")
    first, allowed = weights[0], (noise.dtype, torch.bfloat16, torch.float16)
    letters = "outputs, inputs"
    checks.like("weights[0]", first, letters, first.shape, allowed, noise, reference="noise")


def _fake(noise: Tensor, *_: Any) -> Tensor:
    return torch.empty(noise.shape, dtype=noise.dtype, device=noise.device)


def _reference(*args: Any) -> Tensor:
    return head.ddpm_sample(*args[:-1])


def _example(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Any, ...]:
    """3 guided tokens of 16 channels, 2 blocks 96 wide, 5 steps; dtype is the weights'."""
    tokens, channels, steps = 3, 16, 5
    shape = HeadShape(channels, condition=64, width=96, depth=2, frequencies=256)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=generator.device).to(device)

    process = diffusion.GaussianDiffusion(diffusion.space_timesteps(1000, str(steps)))
    schedule, timesteps = process.sampling_schedule()
    return (
        draw(tokens, channels),
        draw(steps, tokens, channels),
        draw(2 * tokens, shape.condition),
        example_weights(shape, dtype, device, generator),
        schedule.to(device),
        timesteps.to(device),
        torch.tensor([2.9], device=device),
        1.0,
        True,
        None,
    )


def _can_run_cpu(
    noise: Tensor, step_noise: Tensor, cond: Tensor, weights: Sequence[Tensor], *_: Any
) -> Verdict:
    ok, reason = native.can_run({"noise": noise})
    return native.can_run({"weights": weights[0]}, native.WEIGHTS) if ok else (ok, reason)


def _run_cpu(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
    packed: Tensor | None,
) -> Tensor:
    shape = HeadShape.of(weights)
    extension = native.extension()
    packed = packed_head(weights, shape, packed)
    step_noise = step_noise if step_noise[0].is_contiguous() else step_noise.contiguous()
    noise, schedule = noise.contiguous(), schedule.contiguous()
    embedding = time_embedding(tuple(timesteps.tolist()), shape.frequencies)
    tokens, steps = noise.shape[0], len(timesteps)
    copies = cond.shape[0] // max(1, tokens)  # of a token's state: 2 under guidance
    group = max(1, PAIRS // max(1, copies))
    most = max(1, PAIRS // max(1, min(group, tokens) * copies))  # steps whose pairs fit
    chunks = -(-steps // most)
    chunk = -(-steps // chunks)
    size = extension.ddpm_sample_workspace(shape, min(group, tokens), steps, chunk, copies == 2)
    workspace = native.empty(size)
    out = noise.new_empty(noise.shape)
    for first in range(0, tokens, group):
        members = slice(first, min(tokens, first + group))
        group_cond = torch.cat([rows[members] for rows in cond.split(tokens)])
        for i in range(chunks):  # Ctrl-C is heard between them
            begin, end = steps * i // chunks, steps * (i + 1) // chunks
            with profiling.range(f"steps {begin}-{end - 1}", len(group_cond)):
                extension.ddpm_sample(
                    out[members].data_ptr(),
                    noise[members].data_ptr(),
                    step_noise[0, members].data_ptr(),
                    group_cond.data_ptr(),
                    packed.data_ptr(),
                    schedule.data_ptr(),
                    embedding.data_ptr(),
                    guidance.data_ptr(),
                    workspace.data_ptr(),
                    shape,
                    members.stop - members.start,
                    steps,
                    begin,
                    end,
                    chunk,
                    step_noise.stride(0),
                    native.packed_code(weights[0].dtype),
                    native.threads(),
                    copies == 2,
                    temperature,
                    clip_denoised,
                )
    return out


def _can_run_triton(
    noise: Tensor, step_noise: Tensor, cond: Tensor, weights: Sequence[Tensor], *_: Any
) -> Verdict:
    ok, reason = triton_backend.can_run({"noise": noise}, (torch.float32,))
    width = weights[0].shape[0]
    return triton_backend.can_run({"weights": weights[0]}, width=width) if ok else (ok, reason)


def _can_run_cuda(
    noise: Tensor, step_noise: Tensor, cond: Tensor, weights: Sequence[Tensor], *_: Any
) -> Verdict:
    ok, reason = cuda.can_run({"noise": noise})
    return cuda.can_run({"weights": weights[0]}, native.WEIGHTS) if ok else (ok, reason)


def _run_cuda(
    noise: Tensor,
    step_noise: Tensor,
    cond: Tensor,
    weights: Sequence[Tensor],
    schedule: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
    packed: Tensor | None,
) -> Tensor:
    embedding = device_time_embedding(timesteps, weights[0].shape[1])
    rest = (schedule, embedding, guidance, temperature, clip_denoised)
    return cuda_sample.sample(noise, step_noise, cond, weights, *rest)


_OP = Op(
    "ddpm_sample(Tensor noise, Tensor step_noise, Tensor cond, Tensor[] weights, Tensor schedule, "
    "Tensor timesteps, Tensor guidance, float temperature=1.0, bool clip_denoised=False, "
    "Tensor? packed=None) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    example=_example,
    backends=[
        Backend("cuda", _can_run_cuda, _run_cuda, on_request=True),
        triton_backend.backend("ddpm_sample", _can_run_triton),
        Backend("cpu", _can_run_cpu, _run_cpu),
    ],
    differentiable=False,
)
