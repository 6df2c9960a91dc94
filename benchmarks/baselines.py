"""What a user would run without marfast, as functions of a head's workload."""

from collections.abc import Callable

import torch
from workloads import HeadWorkload

from marfast import ops
from marfast.reference import head

Run = Callable[[], torch.Tensor]


def eager(workload: HeadWorkload) -> Run:
    """The reference, which is the original's loop."""

    def run() -> torch.Tensor:
        with ops.backend("reference"):
            return ops.ddpm_sample(*workload.arguments)

    return run


def warm_autocast(workload: HeadWorkload) -> Run:
    """The same under bfloat16 autocast, its cache of cast weights filled by an earlier run."""
    torch.autocast_increment_nesting()  # so that leaving the context doesn't empty the cache
    leaves = [weight.detach().requires_grad_() for weight in workload.arguments[3]]
    arguments = (*workload.arguments[:3], leaves, *workload.arguments[4:])

    def run() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return head.ddpm_sample(*arguments)

    return run


def compiled(workload: HeadWorkload) -> Run:
    """The head compiled by torch.compile, in the reference's loop; compiled by an earlier run."""
    noise, step_noise, cond, weights, schedule, timesteps, guidance, *options = workload.arguments
    denoise = torch.compile(head.denoise, dynamic=False)

    def run() -> torch.Tensor:
        x = noise
        for coefficients, t, noise_t in zip(schedule, timesteps, step_noise, strict=True):
            rows = x.repeat(cond.shape[0] // x.shape[0], 1)
            output = denoise(rows, t.expand(rows.shape[0]), cond, weights)
            x = head.ddpm_step(x, output, noise_t, coefficients, guidance, *options)
        return x

    return run
