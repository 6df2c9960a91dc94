"""What rows come to, by PyTorch's own operators: the reference's loss, and its derivative in the
head's output, elementwise (marfast/ops/diffusion_loss/triton.py has the formulas)."""

import functools
import math

import torch
from torch import Tensor

from marfast.ops.diffusion_loss.rows import Chunk, Terms
from marfast.reference.diffusion import approx_standard_normal_cdf, learned_range_log_variance
from marfast.reference.diffusion_loss import training_process

COLUMNS = (
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "log_betas",
    "posterior_log_variance_clipped",
)


@functools.lru_cache(maxsize=16)
def table(device: torch.device) -> Tensor:
    """The training process's coefficients [1000, 8] float32."""
    process = training_process()
    columns = [torch.from_numpy(getattr(process, name)) for name in COLUMNS]
    return torch.stack(columns, dim=1).float().to(device)


def terms(output: Tensor, chunk: Chunk, wanted: bool) -> Terms:
    """Of a chunk's rows."""
    process = training_process()
    x = process.q_sample(chunk.target, chunk.t, chunk.noise)
    losses = process.loss_terms(output, chunk.target, x, chunk.t, chunk.noise)["loss"]
    return Terms(losses, _derivative(output, chunk) if wanted else None)


def _derivative(output: Tensor, chunk: Chunk) -> Tensor:
    """[R, 2C] of each row's loss: of the squared error in ε, of the bound in v alone."""
    channels = chunk.target.shape[1]
    rows = table(output.device)[chunk.t].to(output.dtype)[:, :, None]
    c_x0, c_noise, c_p, c_q, c_mean_x0, c_mean_x, log_beta, log_posterior = rows.unbind(1)
    eps, v = output.chunk(2, dim=1)
    x0, noise = chunk.target, chunk.noise
    x = c_x0 * x0 + c_noise * noise
    log_variance = learned_range_log_variance(v, log_beta, log_posterior)
    mean = c_mean_x0 * (c_p * x - c_q * eps) + c_mean_x * x
    off = c_mean_x0 * x0 + c_mean_x * x - mean
    ratio = torch.exp(log_posterior - log_variance)
    slope = 0.5 * (1 - ratio - off.square() * torch.exp(-log_variance))  # in the log variance
    of_bin = _derivative_of_a_bin(x0, x0 - mean, torch.exp(-0.5 * log_variance))
    slope = torch.where((chunk.t == 0)[:, None], of_bin, slope)
    of_v = slope * (log_beta - log_posterior) * (0.5 / (channels * math.log(2.0)))
    return torch.cat([(eps - noise) * (2 / channels), of_v], dim=1)


def _derivative_of_a_bin(x0: Tensor, centered: Tensor, inverse_std: Tensor) -> Tensor:
    """Of a discretised likelihood's -log P, in the log variance; 0 where P is cut off below."""
    below_plus, rise_plus = _cdf(inverse_std * (centered + 1 / 255))
    below_minus, rise_minus = _cdf(inverse_std * (centered - 1 / 255))
    lowest, highest = x0 < -0.999, x0 > 0.999
    p = below_plus - below_minus
    p = torch.where(lowest, below_plus, torch.where(highest, 1 - below_minus, p))
    rise = rise_plus.masked_fill(highest, 0) - rise_minus.masked_fill(lowest, 0)
    return torch.where(p < 1e-12, 0, -rise / p.clamp(min=1e-12))


def _cdf(x: Tensor) -> tuple[Tensor, Tensor]:
    """The approximate CDF of N(0, 1), and its derivative where x is proportional to 1 / σ, in the
    log variance."""
    below = approx_standard_normal_cdf(x)
    density = 2 * math.sqrt(2 / math.pi) * below * (1 - below) * (1 + 3 * 0.044715 * x.square())
    return below, -0.5 * x * density
