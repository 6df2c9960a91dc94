"""Random arguments of the head's ops, at any size, and what a graph's capture forbids them."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from marfast.ops.head import HeadShape
from marfast.reference import GaussianDiffusion, create_diffusion
from marfast.reference.respacing import sampling_timesteps
from marfast.reference.samplers import table_of

HEADS = {
    "MAR-B": HeadShape(16, 768, 1024, 6, 256, 1024),
    "MAR-L": HeadShape(16, 1024, 1280, 8, 256, 1280),
    "MAR-H": HeadShape(16, 1280, 1536, 12, 256, 1536),
}
"""The paper's."""


def sample_inputs(
    tokens: int = 3,
    *,
    guided: bool = True,
    steps: int = 4,
    channels: int = 16,
    condition: int = 24,
    width: int = 40,
    depth: int = 2,
    frequencies: int = 256,
    clip: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Any, ...]:
    """All arguments of `ddpm_sample` but `packed`; dtype is the weights'."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    shape = HeadShape(channels, condition, width, depth, frequencies, width)
    weights = [draw(*sizes) * max(1, sizes[-1]) ** -0.5 for sizes in shape.expected()]
    rows = 2 * tokens if guided else tokens
    return (
        draw(tokens, channels),
        draw(steps, tokens, channels),
        draw(rows, condition),
        [weight.to(dtype) for weight in weights],
        *create_diffusion(str(steps)).sampling_schedule(),
        torch.tensor([2.5]),
        0.9,
        clip,
    )


def sampler_inputs(
    sampler: str, *, steps: int = 6, eta: float = 0.0, **sizes: Any
) -> tuple[Any, ...]:
    """All arguments of `ddpm_sample`, with this sampler's table and a guidance scale for each step;
    a multistep one starts from an x_0 that its first step must not use."""
    noise, step_noise, cond, weights, _, _, _, *options = sample_inputs(steps=steps, **sizes)
    process = GaussianDiffusion(sampling_timesteps(steps, sampler))
    table = table_of(process, sampler, eta)
    if table.multistep:
        noise = torch.stack([noise, torch.full_like(noise, 7.0)])
    rest = (torch.linspace(1.5, 2.5, steps), *options, None, table.learned_range)
    return noise, step_noise, cond, weights, table.coefficients, table.timesteps, *rest


def step_inputs(tokens: int = 3, channels: int = 16, dtype: torch.dtype = torch.float32, seed=0):
    """All arguments of `ddpm_step` for a multistep sampler, guided; dtype is model_output's."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(2, tokens, channels, generator=generator)
    output = torch.randn(2 * tokens, channels, generator=generator).to(dtype)
    table = table_of(create_diffusion("8"), "dpm++2m-sde")
    noise, rest = state.flip(0)[0].cos(), (torch.tensor([2.5]), 0.9, True, False)
    return state, output, noise, table.coefficients[3], *rest


def denoise_inputs(rows: int = 5, **sizes: Any) -> tuple[Any, ...]:
    """All arguments of `denoise` but `packed`."""
    x, _, cond, weights, *_ = sample_inputs(rows, guided=False, **sizes)
    t = torch.randint(0, 1000, (rows,), generator=torch.Generator().manual_seed(rows))
    return x, t, cond, weights


class OnOneDevice(TorchDispatchMode):
    """Fails where a tensor of another device appears: a capture forbids a copy from the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in (*args, result):
            assert not isinstance(value, Tensor) or value.device.type == "meta", func
        return result
