"""The diffusion process of MAR's per-token head: schedule, sampling step, training loss.

MAR section 3.2 ("Diffusion Loss") with the process of Nichol & Dhariwal 2021 (arXiv 2102.09672): a
cosine noise schedule over 1000 timesteps, ε-prediction and a learned-range variance.

Coefficients are computed in float64 and cast to float32 where they meet a tensor. Every expression
keeps its order of operations: results are compared bit for bit.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from marfast.reference.respacing import NUM_TRAIN_TIMESTEPS, space_timesteps
from marfast.reference.samplers import Coefficients, sampling_schedule

Model = Callable[..., Tensor]


def cosine_betas(num_timesteps: int, max_beta: float = 0.999) -> npt.NDArray[np.float64]:
    """β_t of the cosine schedule (arXiv 2102.09672, equation 17) -> [num_timesteps]."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array(
        [
            min(1 - alpha_bar((i + 1) / num_timesteps) / alpha_bar(i / num_timesteps), max_beta)
            for i in range(num_timesteps)
        ]
    )


def guided_epsilon(eps: Tensor, *scales: float | Tensor) -> Tensor:
    """Classifier-free guidance, conditional rows first: of two branches, eps [2N, C] -> [N, C],
    ε_u + s(ε_c − ε_u); of three, with a scale more, (ε_u₂ + s₂(ε_u₁ − ε_u₂)) + s(ε_c − ε_u₁)."""
    branches = eps.chunk(len(scales) + 1)
    guided = branches[-1]
    for i, scale in reversed([*enumerate(scales)]):
        guided = guided + scale * (branches[i] - branches[i + 1])
    return guided


def learned_range_log_variance(v: Tensor, log_beta: Tensor, posterior_log_var: Tensor) -> Tensor:
    """log σ² between log β̃_t (v = −1) and log β_t (v = 1) (arXiv 2102.09672, equation 15)."""
    fraction = (v + 1) / 2
    return fraction * log_beta + (1 - fraction) * posterior_log_var


class HeadOptions(NamedTuple):
    """What a head computes and how it is sampled, beside its tensors."""

    branches: int = 1
    """Rows of a token, conditional ones first: 2 or 3 under classifier-free guidance."""
    temperature: float = 1.0
    """Scales the noise of each step."""
    clip_denoised: bool = False
    """Clamp x_0 to [−1, 1] in each step: for models whose tokens lie there."""
    learned_range: bool = True
    """The head says σ, too, within a range; else its table does."""
    dynamic_threshold: float = 0.0
    """The quantile of |x_0| that `thresholded` limits a token's x_0 by; 0: none does."""

    @property
    def guided(self) -> bool:
        return self.branches > 1


def thresholded(x0: Tensor, quantile: float) -> Tensor:
    """Dynamic thresholding (arXiv 2205.11487, section 2.3) for tokens that lie in [−1, 1]: each row
    of x_0 [N, C] is clamped to ±s and divided by s, the larger of 1 and this quantile of its |x_0|.
    """
    if not x0.numel():
        return x0
    sizes = x0.abs().sort(dim=1).values
    place = float(np.float32(quantile)) * (x0.shape[1] - 1)  # as the kernels are told it
    below = int(place)
    low, high = sizes[:, below], sizes[:, min(below + 1, x0.shape[1] - 1)]
    s = (low + (high - low) * (place - below)).clamp(min=1)[:, None]
    return x0.clamp(-s, s) / s


def ddpm_step(
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    options: HeadOptions,
) -> Tensor:
    """One denoising step x_t -> x_{t−1} of N tokens: the update of marfast/reference/samplers.py.

    x [N, C], or [2, N, C]: x and the x_0 of the step before, for a sampler that reads it; noise
    [N, C]; model_output [R, 2C], the head's ε and v (or [R, C], ε alone, where the table has σ),
    R = N, or 2N or 3N if guided (v of the conditional rows counts); coefficients [8], a row of a
    table; guidance [1] or [2], read if guided -> [N, C]; or [2, N, C]: that, and this step's x_0.
    Computed in x's dtype.
    """
    now, previous = x if x.dim() == 3 else (x, None)
    row = Coefficients(*coefficients.unbind())
    channels = now.shape[1]
    output = model_output.to(x.dtype)
    eps, v = output[:, :channels], output[:, channels:]
    if options.guided:
        eps = guided_epsilon(eps, *guidance.to(x.dtype).split(1))
        v = v[: now.shape[0]]
    x0 = row.p * now - row.q * eps
    if options.clip_denoised:
        x0 = x0.clamp(-1, 1)
    if options.dynamic_threshold:
        x0 = thresholded(x0, options.dynamic_threshold)
    mean = row.x0 * x0 + row.x * now
    if previous is not None:
        mean = mean + row.previous * previous
    sigma = row.noise
    if options.learned_range:
        log_variance = learned_range_log_variance(v, row.log_beta, row.log_posterior)
        sigma = sigma * torch.exp(0.5 * log_variance)
    after = mean + sigma * noise * options.temperature
    return after if previous is None else torch.stack([after, x0])


def normal_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(mean1, e^log_var1) ‖ N(mean2, e^log_var2)) by element, in nats."""
    return 0.5 * (
        -1.0
        + log_var2
        - log_var1
        + torch.exp(log_var1 - log_var2)
        + ((mean1 - mean2) ** 2) * torch.exp(-log_var2)
    )


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability (nats) of the 1/255-wide bin round x in [−1, 1], open at both ends."""
    centered = x - mean
    inverse_std = torch.exp(-log_scale)
    cdf_plus = approx_standard_normal_cdf(inverse_std * (centered + 1.0 / 255.0))
    cdf_minus = approx_standard_normal_cdf(inverse_std * (centered - 1.0 / 255.0))
    log_cdf_plus = torch.log(cdf_plus.clamp(min=1e-12))
    log_survival = torch.log((1.0 - cdf_minus).clamp(min=1e-12))
    log_delta = torch.log((cdf_plus - cdf_minus).clamp(min=1e-12))
    return torch.where(x < -0.999, log_cdf_plus, torch.where(x > 0.999, log_survival, log_delta))


def _bits(nats: Tensor) -> Tensor:
    return nats.mean(dim=1) / math.log(2.0)


class GaussianDiffusion:
    """A (respaced) diffusion process over tokens [N, C].

    `timestep_map[i]` is the training timestep of this process's step i; the model is always called
    with training timesteps.
    """

    def __init__(self, timesteps: Iterable[int], num_train_timesteps: int = NUM_TRAIN_TIMESTEPS):
        full = np.cumprod(1.0 - cosine_betas(num_train_timesteps))
        self.timestep_map = sorted(timesteps)
        betas = []
        previous = 1.0
        for step in self.timestep_map:
            betas.append(1 - full[step] / previous)
            previous = full[step]
        self.betas = np.array(betas)
        self.num_timesteps = len(betas)

        alphas = 1.0 - self.betas
        self.alphas_cumprod = np.cumprod(alphas)
        alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        one_minus = 1.0 - self.alphas_cumprod
        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(one_minus)
        self.sqrt_recip_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod - 1)
        self.log_betas = np.log(self.betas)
        self.posterior_variance = self.betas * (1.0 - alphas_cumprod_prev) / one_minus
        # β̃_0 = 0 has no logarithm: β̃_1 stands in. A process of one step has no β̃_1.
        self.posterior_log_variance_clipped = np.log(
            np.append(self.posterior_variance[1:2], self.posterior_variance[1:])
        )
        self.posterior_mean_coef1 = self.betas * np.sqrt(alphas_cumprod_prev) / one_minus
        self.posterior_mean_coef2 = (1.0 - alphas_cumprod_prev) * np.sqrt(alphas) / one_minus

    def sampling_schedule(self) -> tuple[Tensor, Tensor]:
        """`sampling_schedule` of this process."""
        return sampling_schedule(self)

    def _at(self, coefficient: npt.NDArray[np.float64], t: Tensor) -> Tensor:
        return torch.from_numpy(coefficient).float().to(t.device)[t][:, None]

    def _call(self, model: Model, x: Tensor, t: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
        timesteps = torch.tensor(self.timestep_map, device=t.device, dtype=t.dtype)
        return model(x, timesteps[t], **kwargs)

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0): √ᾱ_t x_0 + √(1−ᾱ_t) noise."""
        return (
            self._at(self.sqrt_alphas_cumprod, t) * x_start
            + self._at(self.sqrt_one_minus_alphas_cumprod, t) * noise
        )

    def _posterior_mean(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return (
            self._at(self.posterior_mean_coef1, t) * x_start
            + self._at(self.posterior_mean_coef2, t) * x_t
        )

    def _p_mean_log_variance(
        self, model_output: Tensor, x: Tensor, t: Tensor, clip_denoised: bool
    ) -> tuple[Tensor, Tensor]:
        eps, v = model_output.chunk(2, dim=1)
        log_variance = learned_range_log_variance(
            v, self._at(self.log_betas, t), self._at(self.posterior_log_variance_clipped, t)
        )
        x0 = (
            self._at(self.sqrt_recip_alphas_cumprod, t) * x
            - self._at(self.sqrt_recipm1_alphas_cumprod, t) * eps
        )
        if clip_denoised:
            x0 = x0.clamp(-1, 1)
        return self._posterior_mean(x0, x, t), log_variance

    def p_sample(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        model_kwargs: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """x_{t−1} ~ p(x_{t−1} | x_t); x [N, C], t [N] steps of this process -> [N, C]."""
        output = self._call(model, x, t, model_kwargs or {})
        mean, log_variance = self._p_mean_log_variance(output, x, t, clip_denoised)
        noise = torch.randn_like(x)
        nonzero = (t != 0).float()[:, None]
        return mean + nonzero * torch.exp(0.5 * log_variance) * noise * temperature

    def p_sample_loop_progressive(
        self,
        model: Model,
        shape: tuple[int, ...],
        noise: Tensor | None = None,
        clip_denoised: bool = True,
        model_kwargs: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        temperature: float = 1.0,
    ) -> Iterator[Tensor]:
        """Each x_{t−1} of the whole denoising loop; the last one is the sample."""
        self.sampling_schedule()  # raises where there is none
        x = torch.randn(*shape).to(device) if noise is None else noise
        steps: Iterable[int] = range(self.num_timesteps - 1, -1, -1)
        if progress:
            from tqdm.auto import tqdm

            steps = tqdm(steps)
        for step in steps:
            t = torch.full((shape[0],), step, device=x.device)
            with torch.no_grad():
                x = self.p_sample(model, x, t, clip_denoised, model_kwargs, temperature)
            yield x

    def p_sample_loop(
        self, model: Model, shape: tuple[int, ...], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The sample [N, C] of the whole loop; arguments as in `p_sample_loop_progressive`."""
        for x in self.p_sample_loop_progressive(model, shape, *args, **kwargs):
            sample = x
        return sample

    def _variational_bound(self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The variational bound's term at t [N], in bits; at t = 0 a discretised likelihood."""
        true_mean = self._posterior_mean(x_start, x_t, t)
        true_log_variance = self._at(self.posterior_log_variance_clipped, t)
        mean, log_variance = self._p_mean_log_variance(output, x_t, t, clip_denoised=False)
        kl = _bits(normal_kl(true_mean, true_log_variance, mean, log_variance))
        likelihood = discretized_gaussian_log_likelihood(x_start, mean, 0.5 * log_variance)
        return torch.where(t == 0, _bits(-likelihood), kl)

    def training_losses(
        self,
        model: Model,
        x_start: Tensor,
        t: Tensor,
        model_kwargs: Mapping[str, Any] | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss per token [N]: mean squared error of ε, plus the variational bound at detached ε.

        x_start, noise [N, C]; t [N]. The bound trains v alone (arXiv 2102.09672, section 3.1).
        """
        noise = torch.randn_like(x_start) if noise is None else noise
        x_t = self.q_sample(x_start, t, noise)
        return self.loss_terms(
            self._call(model, x_t, t, model_kwargs or {}), x_start, x_t, t, noise
        )

    def loss_terms(
        self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """`training_losses` of a model's output [N, 2C] for x_t [N, C]."""
        eps, v = output.chunk(2, dim=1)
        bound = self._variational_bound(torch.cat([eps.detach(), v], dim=1), x_start, x_t, t)
        mse = ((noise - eps) ** 2).mean(dim=1)
        return {"loss": mse + bound, "mse": mse, "vb": bound}


def create_diffusion(timestep_respacing: str | Iterable[int] | None = "") -> GaussianDiffusion:
    """MAR's process, respaced as `space_timesteps` says; "" or None keeps all 1000 timesteps."""
    if timestep_respacing is None or timestep_respacing == "":
        timestep_respacing = [NUM_TRAIN_TIMESTEPS]
    return GaussianDiffusion(space_timesteps(NUM_TRAIN_TIMESTEPS, timestep_respacing))
