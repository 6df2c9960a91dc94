"""`ddpm_step`: guidance, x_0, mean and noise, elementwise; c is a row of the sampler's table.

    eps   = eps_u + guidance (eps_c - eps_u)     under guidance; v of the conditional row
    eps   = (eps_u2 + guidance_2 (eps_u1 - eps_u2)) + guidance (eps_c - eps_u1)     of 3 branches
    x0    = c.p x - c.q eps                      clamped to [-1, 1] on request
    mean  = c.x0 x0 + c.x x                      + c.previous x0', the step before's, if multistep
    f     = (v + 1) / 2
    sigma = c.noise exp(0.5 (f c.log_beta + (1 - f) c.log_posterior)), or c.noise alone
    out   = mean + (sigma noise) temperature

BLOCK numbers of [N, C] a program, a few a thread. Each product and sum is rounded on its own, as in
the reference: the launcher forbids contraction (enable_fp_fusion=False reaches LLVM, which then
writes mul.rn and add.rn, and ptxas, as --fmad=false); exp's own FMAs are written as such. So the
result has the reference's bits, given sigma, and sigma is within 1 ULP.
Bytes moved: (4 + 2 G) numbers an element, 1 less without v, 2 more if multistep; the floor is that
over the memory's bandwidth.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.ddpm_step import Step, filled
from marfast.ops.head import takes_threshold
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, rows_adjacent
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import row_stride, takes
from marfast.ops.runtime.triton_functions import exp


@triton.jit(
    do_not_specialize=["tokens"],
    do_not_specialize_on_alignment=["p_noise", "p_coefficients", "p_guidance", "p_x0"],
)
def ddpm_step_kernel(
    p_out,  # [copies N, C]
    p_x,  # [N, C]
    p_model,  # [N, 2C], or [2N, 2C] or [3N, 2C] under guidance
    p_noise,  # [N, C]
    p_coefficients,  # [8]
    p_guidance,  # [1], or [2] of 3 branches
    p_x0,  # [N, C], if multistep
    tokens,
    channels,
    stride_x,
    stride_model,
    stride_noise,
    temperature,
    BRANCHES: tl.constexpr,
    CLIP: tl.constexpr,
    LEARNED: tl.constexpr,
    MULTISTEP: tl.constexpr,
    COPIES: tl.constexpr,  # of the result, one below the other
    BLOCK: tl.constexpr,
):
    o_out = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    token, channel = o_out // channels, o_out % channels
    m_out = token < tokens
    c_p, c_q = tl.load(p_coefficients), tl.load(p_coefficients + 1)
    c_x0, c_x = tl.load(p_coefficients + 2), tl.load(p_coefficients + 3)

    o_model = token * stride_model + channel
    eps = tl.load(p_model + o_model, mask=m_out, other=0.0).to(tl.float32)  # [BLOCK]
    if BRANCHES > 1:
        o_uncond = o_model + tokens.to(tl.int64) * stride_model
        eps_u = tl.load(p_model + o_uncond, mask=m_out, other=0.0).to(tl.float32)
        guided = tl.load(p_guidance) * (eps - eps_u)
        if BRANCHES == 3:
            o_last = o_uncond + tokens.to(tl.int64) * stride_model
            eps_last = tl.load(p_model + o_last, mask=m_out, other=0.0).to(tl.float32)
            eps_u = eps_last + tl.load(p_guidance + 1) * (eps_u - eps_last)
        eps = eps_u + guided
    x = tl.load(p_x + token * stride_x + channel, mask=m_out, other=0.0)
    noise = tl.load(p_noise + token * stride_noise + channel, mask=m_out, other=0.0)

    x0 = c_p * x - c_q * eps
    if CLIP:
        x0 = tl.where(x0 > 1.0, 1.0, x0)
        x0 = tl.where(x0 < -1.0, -1.0, x0)
    mean = c_x0 * x0 + c_x * x
    if MULTISTEP:
        mean += tl.load(p_coefficients + 7) * tl.load(p_x0 + o_out, mask=m_out, other=0.0)
        tl.store(p_x0 + o_out, x0, mask=m_out)
    sigma = tl.load(p_coefficients + 6)
    if LEARNED:
        v = tl.load(p_model + o_model + channels, mask=m_out, other=0.0).to(tl.float32)
        f = (v + 1.0) * 0.5
        log_beta, log_posterior = tl.load(p_coefficients + 4), tl.load(p_coefficients + 5)
        sigma *= exp(0.5 * (f * log_beta + (1.0 - f) * log_posterior))
    out = mean + (sigma * noise) * temperature
    for copy in tl.static_range(COPIES):
        p_copy = p_out + copy * tokens.to(tl.int64) * channels
        tl.store(p_copy + o_out, out, mask=m_out)


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x}, (torch.float32,))
    if ok:
        ok, reason = takes({"model_output": a.model_output})
    return takes_threshold(a) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    return filled(a, launch)


def launch(out: Tensor, step: Step) -> None:
    """Fills `out` [N, C], or as many rows for each branch, with copies of x_{t-1}."""
    tokens, channels = step.x.shape
    if tokens == 0 or channels == 0:
        return
    x, model_output, noise = map(rows_adjacent, (step.x, step.model_output, step.noise))
    block = min(tiles.ELEMENTS, 256)
    ddpm_step_kernel[(tiles.tiles(tokens * channels, block),)](
        p_out=out,
        p_x=x,
        p_model=model_output,
        p_noise=noise,
        p_coefficients=step.coefficients.contiguous(),
        p_guidance=step.guidance.contiguous(),
        p_x0=out if step.x0 is None else step.x0,
        tokens=tokens,
        channels=channels,
        stride_x=row_stride(x),
        stride_model=row_stride(model_output),
        stride_noise=row_stride(noise),
        temperature=step.options.temperature,
        BRANCHES=step.options.branches,
        CLIP=step.options.clip_denoised,
        LEARNED=step.options.learned_range,
        MULTISTEP=step.x0 is not None,
        COPIES=len(out) // tokens,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,
    )
