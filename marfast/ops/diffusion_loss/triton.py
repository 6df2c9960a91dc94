"""`diffusion_loss`: the loss of each row and its derivative, from the head's output, in one kernel;
the head itself by the library's products (marfast/ops/diffusion_loss/rows.py).

    x     = c.x0 x0 + c.noise n                    x_t; c is the row of the process's table at t
    mse   = mean (n - eps)^2
    f     = (v + 1) / 2
    l     = f c.log_beta + (1 - f) c.log_posterior
    mu'   = c.mean_x0 (c.p x - c.q eps) + c.mean_x x
    mu    = c.mean_x0 x0 + c.mean_x x
    bound = mean (t > 0 ? 0.5 (-1 + l - l' + exp(l' - l) + (mu - mu')^2 exp(-l)) : -log P) / ln 2
    loss  = mse + bound                            l' = c.log_posterior

with P the probability of the bin of 2 / 255 round x0 under N(mu', e^l), whose CDF is that of the
reference written as a sigmoid; bins at the ends of [-1, 1] are open. d mse / d eps and
d bound / d v (mu' is held fixed) are written beside it.
A program has whole rows, BLOCK_R of them; means are trees over the channels.
Bytes moved: 4 C + 1 numbers a row, 2 C more with the derivative; the floor is that over the
memory's bandwidth.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.diffusion_loss import rows
from marfast.ops.diffusion_loss.rows import Chunk, Terms
from marfast.ops.diffusion_loss.terms import table
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import row_stride, takes
from marfast.ops.runtime.triton_functions import exp


@triton.jit
def cdf(x):
    """The approximate CDF of N(0, 1) at x, of -x, and the first one's derivative."""
    x = tl.where(x > 20.0, 20.0, x)
    x = tl.where(x < -20.0, -20.0, x)
    u = 1.5957691216057308 * (x + 0.044715 * (x * x * x))  # 2 sqrt(2 / pi)
    below = tl.div_rn(1.0, 1.0 + exp(0.0 - u))
    above = tl.div_rn(1.0, 1.0 + exp(u))
    return below, above, below * above * (1.5957691216057308 * (1.0 + 0.134145 * (x * x)))


@triton.jit
def at_least(p):
    return tl.where(p < 1e-12, 1e-12, p)


@triton.jit(do_not_specialize=["rows"])
def diffusion_terms_kernel(
    p_losses,  # [R]
    p_gradient,  # [R, 2C], or None
    p_output,  # [R, 2C]
    p_target,  # [R, C]
    p_noise,  # [R, C]
    p_t,  # [R]
    p_table,  # [1000, 8]
    rows,
    stride_output,
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    o_row = (tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]  # [BR, 1]
    o_channel = tl.arange(0, BLOCK_C)[None, :]  # [1, BC]
    m_row = o_row < rows
    m_all = m_row & (o_channel < CHANNELS)
    t = tl.load(p_t + o_row, mask=m_row, other=1)
    p_row = p_table + 8 * t
    c_x0, c_noise = tl.load(p_row), tl.load(p_row + 1)
    c_p, c_q = tl.load(p_row + 2), tl.load(p_row + 3)
    c_mean_x0, c_mean_x = tl.load(p_row + 4), tl.load(p_row + 5)
    log_beta, log_posterior = tl.load(p_row + 6), tl.load(p_row + 7)

    o_output = o_row * stride_output + o_channel
    eps = tl.load(p_output + o_output, mask=m_all, other=0.0).to(tl.float32)  # [BR, BC]
    v = tl.load(p_output + o_output + CHANNELS, mask=m_all, other=0.0).to(tl.float32)
    x0 = tl.load(p_target + o_row * CHANNELS + o_channel, mask=m_all, other=0.0)
    noise = tl.load(p_noise + o_row * CHANNELS + o_channel, mask=m_all, other=0.0)

    x = c_x0 * x0 + c_noise * noise
    f = (v + 1.0) * 0.5
    log_variance = f * log_beta + (1.0 - f) * log_posterior
    mean = c_mean_x0 * (c_p * x - c_q * eps) + c_mean_x * x
    off = c_mean_x0 * x0 + c_mean_x * x - mean
    ratio = exp(log_posterior - log_variance)
    squared = off * off * exp(0.0 - log_variance)
    bound = 0.5 * (-1.0 + log_variance - log_posterior + ratio + squared)
    slope = 0.5 * (1.0 - ratio - squared)  # in the log variance

    inverse_std = exp(-0.5 * log_variance)
    centered = x0 - mean
    plus = inverse_std * (centered + 0.00392156862745098)  # 1 / 255
    minus = inverse_std * (centered - 0.00392156862745098)
    below_plus, above_plus, rise_plus = cdf(plus)
    below_minus, above_minus, rise_minus = cdf(minus)
    # d plus / d log_variance = -plus / 2
    rise_plus *= -0.5 * plus
    rise_minus *= -0.5 * minus
    inside = tl.where(x0 > 0.0, above_minus - above_plus, below_plus - below_minus)
    p = tl.where(x0 < -0.999, below_plus, tl.where(x0 > 0.999, above_minus, inside))
    rise = tl.where(x0 > 0.999, 0.0, rise_plus) - tl.where(x0 < -0.999, 0.0, rise_minus)
    bound = tl.where(t == 0, 0.0 - tl.log(at_least(p)), bound)
    slope_bin = tl.where(p < 1e-12, 0.0, 0.0 - tl.div_rn(rise, at_least(p)))
    slope = tl.where(t == 0, slope_bin, slope)

    to_bits = 1.4426950408889634 / CHANNELS
    error = noise - eps
    terms = tl.where(m_all, error * error / CHANNELS + bound * to_bits, 0.0)
    tl.store(p_losses + o_row, tl.sum(terms, 1, keep_dims=True), mask=m_row)
    if p_gradient is not None:
        p_rows = p_gradient + o_row * (2 * CHANNELS) + o_channel
        tl.store(p_rows, -2.0 * error / CHANNELS, mask=m_all)
        of_v = slope * (0.5 * (log_beta - log_posterior)) * to_bits
        tl.store(p_rows + CHANNELS, of_v, mask=m_all)


def terms(output: Tensor, chunk: Chunk, wanted: bool) -> Terms:
    """Of a chunk's rows, of which there is one at least."""
    number, channels = chunk.target.shape
    output = output if output.stride(-1) == 1 else output.contiguous()
    block_c = tiles.power_of_two(channels)
    block_r = max(1, tiles.ELEMENTS // block_c)
    losses = chunk.target.new_empty(number)
    gradient = torch.empty_like(output, memory_format=torch.contiguous_format) if wanted else None
    diffusion_terms_kernel[(tiles.tiles(number, block_r),)](
        p_losses=losses,
        p_gradient=gradient,
        p_output=output,
        p_target=chunk.target,
        p_noise=chunk.noise,
        p_t=chunk.t,
        p_table=table(output.device),
        rows=number,
        stride_output=row_stride(output),
        CHANNELS=channels,
        BLOCK_R=block_r,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return Terms(losses, gradient)


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"target": a.target}, (torch.float32,), width=a.target.shape[1])
    return takes({"weights": a.weights[0]}) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    return rows.loss(a, terms)
