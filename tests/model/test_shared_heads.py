"""Other models with MAR's head (docs/models.md): a twin of each head, at that model's sizes and
sampled as that model samples, against `ops.ddpm_sample` with the twin's values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from marfast import ops
from marfast.reference import SimpleMLPAdaLN, create_diffusion
from marfast.reference.samplers import sampling_schedule

TOKENS = 2


def mar_guidance(conditional: Tensor, unconditional: Tensor, cfg: float) -> Tensor:
    return unconditional + cfg * (conditional - unconditional)


def hart_guidance(conditional: Tensor, unconditional: Tensor, cfg: float) -> Tensor:
    return conditional * (1 + cfg) - cfg * unconditional


class Model(NamedTuple):
    """A head's sizes, and what its repository samples it with."""

    channels: int
    condition: int
    width: int
    depth: int
    steps: int
    cfg: float
    guide: Callable[[Tensor, Tensor, float], Tensor]
    guidance: float
    """The scale that `ops.ddpm_sample` takes for `guide` and `cfg`."""
    temperature: float = 1.0
    clip: bool = False
    max_beta: float = 0.999
    unit: float = 1.0
    """What the sample is multiplied by at the end."""
    part: slice = slice(None)
    """Which of the steps the test runs. Without clipping, values drawn at random grow by 10⁴ over
    all of them, and what the later steps do would be lost in rounding."""


HART = Model(32, 1024, 1024, 6, 8, 4.5, hart_guidance, 5.5, clip=True, unit=0.6)
HARMON = Model(16, 1280, 1536, 12, 100, 3.0, mar_guidance, 3.0, part=slice(-4, None))
UNIPIC = HARMON._replace(temperature=0.85, max_beta=0.2, part=slice(4))
MODELS = {"HART": HART, "Harmon": HARMON, "UniPic": UNIPIC}


def mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def modulation(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class TimeEmbed(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.mlp = mlp(256, width)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(torch.arange(128) * (-math.log(10000) / 128))
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = mlp(width, width)
        self.adaLN_modulation = modulation(width, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(y).chunk(2, dim=1)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class Head(nn.Module):
    """The modules of these models' heads, in the order in which they register them."""

    def __init__(self, model: Model):
        super().__init__()
        self.time_embed = TimeEmbed(model.width)
        self.cond_embed = nn.Linear(model.condition, model.width)
        self.input_proj = nn.Linear(model.channels, model.width)
        self.res_blocks = nn.ModuleList(Block(model.width) for _ in range(model.depth))
        self.final_layer = FinalLayer(model.width, 2 * model.channels)

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        y = self.time_embed(t) + self.cond_embed(z)
        x = self.input_proj(x)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)


class Process:
    """A respaced diffusion process, with the attributes of these models' `gen_diffusion`."""

    def __init__(self, steps: int, max_beta: float):
        bar = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        full = np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], max_beta))
        self.timestep_map = [round(i * 999 / (steps - 1)) for i in range(steps)]
        now = full[self.timestep_map]
        before = np.append(1.0, now[:-1])
        self.betas = 1 - now / before
        self.sqrt_recip_alphas_cumprod = np.sqrt(1 / now)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1 / now - 1)
        variance = self.betas * (1 - before) / (1 - now)
        self.posterior_log_variance_clipped = np.log([variance[1], *variance[1:]])
        self.posterior_mean_coef1 = self.betas * np.sqrt(before) / (1 - now)
        self.posterior_mean_coef2 = (1 - before) * np.sqrt(1 - self.betas) / (1 - now)


def twin(model: Model) -> Head:
    """Values drawn for every parameter: as these heads are initialised, half of one is zero."""
    with torch.device("meta"):
        head = Head(model)
    generator = torch.Generator().manual_seed(0)
    values = {}
    for name, parameter in head.named_parameters():
        scale = 0.1 if parameter.dim() == 1 else parameter.shape[1] ** -0.5
        values[name] = torch.randn(parameter.shape, generator=generator) * scale
        if name.endswith("in_ln.weight"):
            values[name] += 1
    head.load_state_dict(values, assign=True)
    return head.requires_grad_(False)


def sample(head: Head, model: Model, z: Tensor) -> Tensor:
    """z [2N, D] -> tokens [2N, C], of which the first N count; noise from the global generator."""
    process = Process(model.steps, model.max_beta)
    x = torch.randn(len(z) // 2, model.channels).repeat(2, 1)
    for i in range(model.steps)[::-1][model.part]:
        half = x[: len(x) // 2]
        t = torch.full((len(x),), process.timestep_map[i])
        eps, v = head(torch.cat([half, half]), t, z).chunk(2, dim=1)
        eps = model.guide(*eps.chunk(2), model.cfg).repeat(2, 1)
        fraction = (v + 1) / 2
        log_variance = (
            fraction * np.log(process.betas[i])
            + (1 - fraction) * process.posterior_log_variance_clipped[i]
        )
        x0 = process.sqrt_recip_alphas_cumprod[i] * x - process.sqrt_recipm1_alphas_cumprod[i] * eps
        if model.clip:
            x0 = x0.clamp(-1, 1)
        mean = process.posterior_mean_coef1[i] * x0 + process.posterior_mean_coef2[i] * x
        noise = torch.randn_like(x)
        x = mean + (i != 0) * torch.exp(0.5 * log_variance) * noise * model.temperature
    return x * model.unit


def sample_by_op(head: Head, model: Model, z: Tensor) -> Tensor:
    """The same tokens, [N, C], from the same random numbers."""
    tokens = len(z) // 2
    noise = torch.randn(tokens, model.channels)
    schedule, timesteps = sampling_schedule(Process(model.steps, model.max_beta))
    schedule, timesteps = schedule[model.part], timesteps[model.part]
    step_noise = [torch.randn(len(z), model.channels)[:tokens] for _ in timesteps]
    with ops.backend("cpu"):
        out = ops.ddpm_sample(
            noise,
            torch.stack(step_noise),
            z,
            [*head.state_dict().values()],
            schedule,
            timesteps,
            torch.tensor([model.guidance]),
            model.temperature,
            model.clip,
        )
    return out * model.unit


def seeded(run: Callable[[Head, Model, Tensor], Tensor], head: Head, model: Model) -> Tensor:
    torch.manual_seed(1)
    return run(head, model, torch.randn(2 * TOKENS, model.condition))


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def twins(request: pytest.FixtureRequest) -> tuple[Model, Head]:
    model: Model = request.param
    return model, twin(model)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_parameters_are_mars_in_mars_order(model: Model) -> None:
    with torch.device("meta"):
        mars = SimpleMLPAdaLN(
            *(model.channels, model.width, 2 * model.channels, model.condition, model.depth)
        )
        own = Head(model)
    assert [*own.state_dict()] == [*mars.state_dict()]


def test_the_process_is_mars_but_for_its_largest_beta() -> None:
    coefficients, timesteps = sampling_schedule(Process(8, max_beta=0.999))
    mars_coefficients, mars_timesteps = create_diffusion("8").sampling_schedule()
    assert timesteps.tolist() == mars_timesteps.tolist()
    torch.testing.assert_close(coefficients, mars_coefficients)


@pytest.mark.usefixtures("needs_native")
def test_the_op_samples_the_models_tokens(twins: tuple[Model, Head]) -> None:
    model, head = twins
    expected = seeded(sample, head, model)[:TOKENS]
    torch.testing.assert_close(seeded(sample_by_op, head, model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("twins", [HART, UNIPIC], ids=["HART", "UniPic"], indirect=True)
def test_each_difference_from_mar_counts(twins: tuple[Model, Head]) -> None:
    model, head = twins
    own = seeded(sample_by_op, head, model)
    mars = {"guidance": model.cfg, "temperature": 1.0, "clip": False, "max_beta": 0.999, "unit": 1}
    for name, value in mars.items():
        if value != getattr(model, name):
            other = seeded(sample_by_op, head, model._replace(**{name: value}))
            assert (other - own).abs().max() > 0.01, name
