"""Samplers as tables: a row of coefficients a step, and one update that reads them.

    x_0 = p x − q out
    x'  = x0 x_0 + x x + previous x_0' + σ n        x_0' is the x_0 of the step before

`out` is the head's output: ε, v, x_0 or a flow's velocity, as p and q have it. All coefficients are
computed in float64 and cast to float32 at the end.

A table needs no more than the noise levels α, σ of x_t = α x_0 + σ n: √ᾱ and √(1 − ᾱ) of a
diffusion process, or t and 1 − t of a flow.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Float64s = npt.NDArray[np.float64]
Prediction = Literal["epsilon", "v", "x0", "velocity"]

SAMPLERS = ("ddpm", "ddim", "dpm++2m", "dpm++2m-sde")
"""Those of a diffusion process, by the names that users give them."""

LEAST_SIGNAL = 0.029
"""α of the noisiest level that a sampler other than DDPM starts from: MAR's t = 980. Past it x_0 =
(x − σ ε)/α takes the head's error 34 to 20,000 times, which DDPM alone was trained to bear."""


class Coefficients(NamedTuple):
    """A row of a table: each factor is named by what it multiplies."""

    p: Any
    q: Any
    x0: Any
    x: Any
    log_beta: Any = 0.0
    log_posterior: Any = 0.0
    """With log β the ends between which a head's learned range has log σ²."""
    noise: Any = 0.0
    """σ; under a learned range a factor of it."""
    previous: Any = 0.0


COLUMNS = len(Coefficients._fields)


class Table(NamedTuple):
    """What S sampling steps need, in the order in which they run."""

    coefficients: Tensor
    """[S, 8] float32, rows of `Coefficients`."""
    timesteps: Tensor
    """[S] int64, or float32 of a flow: what the head is told; [S, times] where it is several."""
    learned_range: bool = False
    """Whether σ is the head's, between log_beta and log_posterior."""
    multistep: bool = False
    """Whether steps read the x_0 of the step before."""


class Levels(NamedTuple):
    """The noise levels of S steps, and of their end."""

    alpha: Float64s
    sigma: Float64s
    timesteps: Tensor

    @property
    def pairs(self) -> tuple[Float64s, Float64s, Float64s, Float64s]:
        """α, σ of each step and of the next, [S] each."""
        return self.alpha[:-1], self.sigma[:-1], self.alpha[1:], self.sigma[1:]

    @property
    def decay(self) -> Float64s:
        """e^−h of each step: the ratio of α/σ to that of the next."""
        alpha, sigma, alpha_next, sigma_next = self.pairs
        return alpha * sigma_next / (sigma * alpha_next)

    def part(self, steps: slice) -> "Levels":
        """Consecutive steps to the end."""
        return Levels(self.alpha[steps], self.sigma[steps], self.timesteps[steps])


def diffusion_levels(process: Any) -> Levels:
    """Those of a `GaussianDiffusion`, or of what has its `alphas_cumprod` and `timestep_map`."""
    cumprod = np.append(process.alphas_cumprod[::-1], 1.0)
    timesteps = torch.tensor(process.timestep_map[::-1], dtype=torch.int64, device="cpu")
    return Levels(np.sqrt(cumprod), np.sqrt(1.0 - cumprod), timesteps)


def flow_levels(times: npt.ArrayLike, time_scale: float = 1.0, spans: bool = False) -> Levels:
    """Those of x_t = t x_0 + (1 − t) n at the S + 1 times of a flow, ascending, the last one 1; the
    head is told t times `time_scale`, or, with `spans`, that of a step's begin and of its end."""
    t = np.asarray(times, dtype=np.float64)
    told = np.stack([t[:-1], t[1:]], axis=1) if spans else t[:-1]
    return Levels(t, 1.0 - t, torch.from_numpy(told * time_scale).float())


def ddpm(process: Any) -> Table:
    """Ancestral sampling with a learned-range variance: MAR's own.

    `process` is a `GaussianDiffusion`, or what has its attributes (LTH14/mar's `SpacedDiffusion`).
    Raises ValueError for fewer than 2 steps.
    """
    steps = len(process.betas)
    if steps < 2:
        raise ValueError(
            f"sampling steps: {steps}, but the learned-range variance needs β̃ at t = 1: "
            "allowed are 2 and more"
        )
    rows = Coefficients(
        p=process.sqrt_recip_alphas_cumprod,
        q=process.sqrt_recipm1_alphas_cumprod,
        x0=process.posterior_mean_coef1,
        x=process.posterior_mean_coef2,
        log_beta=np.log(process.betas),
        log_posterior=process.posterior_log_variance_clipped,
        noise=(np.arange(steps) != 0).astype(np.float64),
    )
    timesteps = torch.tensor(process.timestep_map[::-1], dtype=torch.int64, device="cpu")
    return Table(_stacked(rows, steps).flip(0), timesteps, learned_range=True)


def ddim(levels: Levels, eta: float = 0.0, prediction: Prediction = "epsilon") -> Table:
    """DDIM(η) (arXiv 2010.02502, equation 12). On a flow's levels, with η = 0, it is Euler's step.

    η = 1 is ancestral sampling with the smaller of DDPM's two variances.
    """
    alpha, sigma, alpha_next, sigma_next = levels.pairs
    noise = eta * sigma_next * np.sqrt(1.0 - levels.decay**2)
    direction = np.sqrt(sigma_next**2 - noise**2) / sigma
    return _table(levels, prediction, x0=alpha_next - direction * alpha, x=direction, noise=noise)


def dpm_solver(
    levels: Levels, stochastic: bool = False, prediction: Prediction = "epsilon"
) -> Table:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2), or its SDE form, whose noise keeps a
    temperature meaningful. The first step, and the last one, whose h is infinite, are of first
    order."""
    _, sigma, alpha_next, sigma_next = levels.pairs
    decay = levels.decay
    with np.errstate(divide="ignore", invalid="ignore"):
        h = -np.log(decay)
        half = h / (2 * np.append(np.inf, h[:-1]))  # 1 / 2r
    half[[0, -1]] = 0.0
    if stochastic:
        gain, x = alpha_next * (1.0 - decay**2), sigma_next / sigma * decay
        noise = sigma_next * np.sqrt(1.0 - decay**2)
    else:
        gain, x, noise = alpha_next * (1.0 - decay), sigma_next / sigma, np.zeros_like(decay)
    rows = {"x0": gain * (1.0 + half), "x": x, "noise": noise, "previous": -gain * half}
    return _table(levels, prediction, **rows)._replace(multistep=True)


def euler_maruyama(levels: Levels, prediction: Prediction = "velocity") -> Table:
    """A flow's reverse SDE, dx = (v + (1 − t) s) dt + √(2 (1 − t)) dw with the score s =
    (t v − x) / (1 − t); the last step is Euler's."""
    t, _, t_next, _ = levels.pairs
    stochastic = np.arange(len(t)) < len(t) - 1
    return flow_steps(t, t_next - t, stochastic, levels.timesteps, prediction)


def flow_steps(
    t: Float64s,
    dt: Float64s,
    stochastic: npt.NDArray[np.bool_],
    timesteps: Tensor,
    prediction: Prediction = "velocity",
    least: float = 0.0,
) -> Table:
    """Steps of dt [S] from the times t [S] of a flow, those of `stochastic` [S] by Euler–Maruyama
    and the others by Euler: for loops whose steps don't lead from one time to the next.

    From x_0 a velocity is (x_0 − x) / max(1 − t, `least`).
    """
    sigma = 1.0 - t
    x0 = np.where(stochastic, 1.0 + t, 1.0) * dt / sigma
    x = 1.0 - np.where(stochastic, 2.0, 1.0) * dt / sigma
    noise = np.where(stochastic, np.sqrt(2.0 * sigma * dt), 0.0)
    levels = Levels(np.append(t, 1.0), np.append(sigma, 0.0), timesteps)
    p, q = _x0_factors(levels, prediction)
    if prediction == "x0":
        q = -sigma / np.maximum(sigma, least)
        p = 1.0 + q
    return Table(_stacked(Coefficients(p, q, x0, x, noise=noise), len(t)), timesteps)


def table_of(process: Any, sampler: str, eta: float = 0.0) -> Table:
    """One of `SAMPLERS` over the steps of a diffusion process, for a head that predicts ε; other
    ones than DDPM leave out the steps of less than `LEAST_SIGNAL`."""
    if sampler == "ddpm":
        return ddpm(process)
    levels = diffusion_levels(process)
    first = int((levels.alpha < LEAST_SIGNAL).sum())
    levels = levels.part(slice(first, None))
    if sampler == "ddim":
        return ddim(levels, eta)
    return dpm_solver(levels, stochastic=sampler == "dpm++2m-sde")


def sampling_schedule(process: Any) -> tuple[Tensor, Tensor]:
    """DDPM's coefficients [S, 8] and training timesteps [S], as `ddpm` has them."""
    table = ddpm(process)
    return table.coefficients, table.timesteps


def _x0_factors(levels: Levels, prediction: Prediction) -> tuple[Float64s, Float64s]:
    """p and q of x_0 = p x − q out."""
    alpha, sigma, *_ = levels.pairs
    one = np.ones_like(alpha)
    if prediction == "epsilon":
        return 1.0 / alpha, sigma / alpha
    if prediction == "v":
        return alpha, sigma
    return (0 * one, -one) if prediction == "x0" else (one, -sigma)


def _table(levels: Levels, prediction: Prediction, **columns: Float64s) -> Table:
    p, q = _x0_factors(levels, prediction)
    rows = Coefficients(p, q, **columns)
    return Table(_stacked(rows, len(p)), levels.timesteps)


def _stacked(rows: Coefficients, steps: int) -> Tensor:
    columns = [np.broadcast_to(np.asarray(column, dtype=np.float64), (steps,)) for column in rows]
    return torch.from_numpy(np.stack(columns, axis=1) + 0.0).float()  # no −0
