"""Samplers as their papers write them: plain float64 loops, which know of no table.

Each takes head(x, t) -> x_0 (VP) or velocity (flows), x [N, C], the noise of each step [S, N, C],
and returns x_0.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Head = Callable[[Tensor, int], Tensor]
Velocity = Callable[[Tensor, float], Tensor]


def alpha_bar(t: int) -> float:
    """MAR's ᾱ after timestep t: the product of 1 − β, with β cut at 0.999 (arXiv 2102.09672)."""
    if t < 0:
        return 1.0
    level = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    return math.prod(1 - min(1 - level[i + 1] / level[i], 0.999) for i in range(t + 1))


def ddim(head: Head, x: Tensor, noise: Tensor, times: Sequence[int], eta: float) -> Tensor:
    """arXiv 2010.02502, equations 12 and 16."""
    for i, t in enumerate(times):
        now, after = alpha_bar(t), alpha_bar(times[i + 1] if i + 1 < len(times) else -1)
        sigma = eta * math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
        x0 = head(x, t)
        epsilon = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
        x = math.sqrt(after) * x0 + math.sqrt(1 - after - sigma**2) * epsilon + sigma * noise[i]
    return x


def dpm_solver(head: Head, x: Tensor, noise: Tensor, times: Sequence[int], sde: bool) -> Tensor:
    """arXiv 2211.01095, algorithm 2, and its SDE form; from the last timestep straight to x_0."""

    def level(t: int) -> tuple[float, float, float]:
        alpha, sigma = math.sqrt(alpha_bar(t)), math.sqrt(1 - alpha_bar(t))
        return alpha, sigma, math.log(alpha / sigma)

    before: tuple[Tensor, float] | None = None
    for i, t in enumerate(times[:-1]):
        _, sigma, lam = level(t)
        alpha_next, sigma_next, lam_next = level(times[i + 1])
        h, x0 = lam_next - lam, head(x, t)
        d = x0
        if before is not None:
            ratio = (lam - before[1]) / h
            d = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * before[0]
        if sde:
            x = sigma_next / sigma * math.exp(-h) * x + alpha_next * -math.expm1(-2 * h) * d
            x = x + sigma_next * math.sqrt(-math.expm1(-2 * h)) * noise[i]
        else:
            x = sigma_next / sigma * x - alpha_next * math.expm1(-h) * d
        before = x0, lam
    return head(x, times[-1])


def thresholded(head: Head, quantile: float) -> Head:
    """A head whose x_0 is thresholded (arXiv 2205.11487, section 2.3), token by token: "set s to a
    certain percentile absolute pixel value; if s > 1, then threshold x_0 to the range [−s, s] and
    divide by s"."""

    def limited(x0: Tensor) -> Tensor:
        sizes = sorted(abs(value) for value in x0.tolist())
        place = quantile * (len(sizes) - 1)
        below, share = math.floor(place), place - math.floor(place)
        s = sizes[below] if not share else (1 - share) * sizes[below] + share * sizes[below + 1]
        return x0 if s <= 1 else x0.clamp(-s, s) / s

    return lambda x, t: torch.stack([limited(x0) for x0 in head(x, t)])


def euler(velocity: Velocity, x: Tensor, noise: Tensor, times: Sequence[float]) -> Tensor:
    for t, after in itertools.pairwise(times):
        x = x + (after - t) * velocity(x, t)
    return x


def euler_maruyama(velocity: Velocity, x: Tensor, noise: Tensor, times: Sequence[float]) -> Tensor:
    """NextStep-1's sampler of a flow from noise at t = 0; the last step has no noise."""
    for i, t in enumerate(times[:-2]):
        dt, v = times[i + 1] - t, velocity(x, t)
        score = (t * v - x) / ((1 - t) ** 2 + t * (1 - t))
        x = x + dt * (v + (1 - t) * score) + math.sqrt(2 * (1 - t) * dt) * noise[i]
    return euler(velocity, x, noise, times[-2:])
