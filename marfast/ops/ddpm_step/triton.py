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

import torch
import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.ddpm_step import Step, step_of
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, rows_adjacent
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import row_stride, takes
from marfast.ops.runtime.triton_functions import exp


@triton.jit(
    do_not_specialize=["tokens"],
    do_not_specialize_on_alignment=["p_noise", "p_coefficients"],
)
def ddpm_step_kernel(
    p_out,  # [copies N, C]
    p_x,  # [N, C]
    p_model,  # [N, 2C], or [2N, 2C] under guidance
    p_noise,  # [N, C]
    p_coefficients,  # [7]
    p_guidance,  # [1]
    tokens,
    channels,
    stride_x,
    stride_model,
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
    c0, c1 = tl.load(p_coefficients), tl.load(p_coefficients + 1)
    c2, c3 = tl.load(p_coefficients + 2), tl.load(p_coefficients + 3)
    c4, c5 = tl.load(p_coefficients + 4), tl.load(p_coefficients + 5)
    c6 = tl.load(p_coefficients + 6)

    o_model = token * stride_model + channel
    eps = tl.load(p_model + o_model, mask=m_out, other=0.0).to(tl.float32)  # [BLOCK]
    v = tl.load(p_model + o_model + channels, mask=m_out, other=0.0).to(tl.float32)
    if GUIDED:
        o_model += tokens.to(tl.int64) * stride_model
        eps_u = tl.load(p_model + o_model, mask=m_out, other=0.0).to(tl.float32)
        eps = eps_u + tl.load(p_guidance) * (eps - eps_u)
    x = tl.load(p_x + token * stride_x + channel, mask=m_out, other=0.0)
    noise = tl.load(p_noise + token * stride_noise + channel, mask=m_out, other=0.0)

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


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x}, (torch.float32,))
    return takes({"model_output": a.model_output}) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    out: Tensor = a.x.new_empty(a.x.shape)
    launch(out, step_of(a))
    return out


def launch(out: Tensor, step: Step) -> None:
    """Fills `out` [N, C] or [2N, C] with one or two copies of x_{t-1}."""
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
        p_guidance=step.guidance,
        tokens=tokens,
        channels=channels,
        stride_x=row_stride(x),
        stride_model=row_stride(model_output),
        stride_noise=row_stride(noise),
        temperature=step.options.temperature,
        GUIDED=step.options.guided,
        CLIP=step.options.clip_denoised,
        COPIES=len(out) // tokens,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,
    )
