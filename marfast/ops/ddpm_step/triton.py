"""`ddpm_step`: guidance, learned-range variance, posterior mean and noise, elementwise.

    eps   = eps_u + guidance (eps_c - eps_u)     under guidance; v of the conditional row
    f     = (v + 1) / 2
    sigma = exp(0.5 (f c4 + (1 - f) c5))
    x0    = c0 x - c1 eps                        clamped to [-1, 1] on request
    out   = (c2 x0 + c3 x) + ((c6 sigma) noise) temperature

BLOCK numbers of [N, C] a program, a few a thread. Each product and sum is rounded on its own, as in
the reference: the launcher forbids contraction (enable_fp_fusion=False reaches LLVM, which then
writes mul.rn and add.rn, and ptxas, as --fmad=false); exp's own FMAs are written as such. So the
result has the reference's bits, given sigma, and sigma is within 1 ULP.
Bytes moved: (4 + 2 G) numbers an element; the floor is that over the memory's bandwidth.
"""

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .device import exp
from .layout import row_stride, rows_adjacent


@triton.jit(
    do_not_specialize=["step", "tokens", "stride_step"],
    do_not_specialize_on_alignment=["p_noise"],
)
def ddpm_step_kernel(
    p_out,  # [copies N, C]
    p_x,  # [N, C]
    p_model,  # [N, 2C], or [2N, 2C] under guidance
    p_noise,  # [S, N, C]
    p_schedule,  # [S, 7]
    p_guidance,  # [1]
    step,
    tokens,
    channels,
    stride_x,
    stride_model,
    stride_step,  # of noise, from a step to the next
    stride_noise,
    temperature,
    GUIDED: tl.constexpr,
    CLIP: tl.constexpr,
    COPIES: tl.constexpr,  # of the result, one below the other
    BLOCK: tl.constexpr,
):
    o_out = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    token, channel = o_out // channels, o_out % channels
    m_out = token < tokens
    p_schedule += step * 7
    c0, c1 = tl.load(p_schedule), tl.load(p_schedule + 1)
    c2, c3 = tl.load(p_schedule + 2), tl.load(p_schedule + 3)
    c4, c5, c6 = tl.load(p_schedule + 4), tl.load(p_schedule + 5), tl.load(p_schedule + 6)

    o_model = token * stride_model + channel
    eps = tl.load(p_model + o_model, mask=m_out, other=0.0).to(tl.float32)  # [BLOCK]
    v = tl.load(p_model + o_model + channels, mask=m_out, other=0.0).to(tl.float32)
    if GUIDED:
        o_model += tokens.to(tl.int64) * stride_model
        eps_u = tl.load(p_model + o_model, mask=m_out, other=0.0).to(tl.float32)
        eps = eps_u + tl.load(p_guidance) * (eps - eps_u)
    x = tl.load(p_x + token * stride_x + channel, mask=m_out, other=0.0)
    o_noise = step.to(tl.int64) * stride_step + token * stride_noise + channel
    noise = tl.load(p_noise + o_noise, mask=m_out, other=0.0)

    f = (v + 1.0) * 0.5
    sigma = exp(0.5 * (f * c4 + (1.0 - f) * c5))
    x0 = c0 * x - c1 * eps
    if CLIP:
        x0 = tl.where(x0 > 1.0, 1.0, x0)
        x0 = tl.where(x0 < -1.0, -1.0, x0)
    out = (c2 * x0 + c3 * x) + ((c6 * sigma) * noise) * temperature
    for copy in tl.static_range(COPIES):
        p_copy = p_out + copy * tokens.to(tl.int64) * channels
        tl.store(p_copy + o_out, out, mask=m_out)


def launch(
    out: Tensor,
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    schedule: Tensor,
    guidance: Tensor,
    step: int,
    temperature: float,
    clip_denoised: bool,
) -> None:
    """Fills `out` [N, C] or [2N, C] with one or two copies of x_{t-1}: the step numbered `step` of
    noise [S, N, C] and schedule [S, 7]. x [N, C] may be the first N rows of `out`."""
    tokens, channels = x.shape
    if tokens == 0 or channels == 0:
        return
    block = min(tiles.ELEMENTS, 256)
    ddpm_step_kernel[(tiles.tiles(tokens * channels, block),)](
        *(out, x, model_output, noise, schedule, guidance, step, tokens, channels),
        *(row_stride(x), row_stride(model_output), noise.stride(0), row_stride(noise[0])),
        temperature,
        GUIDED=len(model_output) != tokens,
        CLIP=clip_denoised,
        COPIES=len(out) // tokens,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,
    )


def ddpm_step(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    temperature: float,
    clip_denoised: bool,
) -> Tensor:
    """The op."""
    out = x.new_empty(x.shape)
    x, model_output, noise = map(rows_adjacent, (x, model_output, noise))
    schedule = coefficients.contiguous()[None]
    launch(out, x, model_output, noise[None], schedule, guidance, 0, temperature, clip_denoised)
    return out
