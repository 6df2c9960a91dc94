"""`accelerate(model, sampler=…)`: the sampler that was asked for, in the model's own methods."""

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marfast
from marfast.checkpoints import Settings
from marfast.drop_in.chosen import Chosen
from marfast.errors import ArgumentError
from marfast.generation import Pipeline
from marfast.model import FastMAR
from marfast.reference import MAR, DiffLoss
from marfast.reference.denoise import denoise
from marfast.verifying.case import fill
from tests.helpers import assert_bitwise_equal
from tests.models import TINY, tiny_weights
from tests.ops import sampler_loops as loops

N, C, D, GUIDANCE = 5, 16, 24, 2.5


def diffloss(steps: str = "ddim10") -> DiffLoss:
    return fill(DiffLoss(C, D, 2, 40, steps)).eval()


def by_hand(module: DiffLoss, z: Tensor, eta: float, guided: bool) -> Tensor:
    """The reference's head in float64 in the loop of DDIM's paper; draws as the original draws."""
    tokens, times = len(z) // (1 + guided), module.gen_diffusion.timestep_map[::-1]
    start = torch.randn(tokens, C)
    noise = torch.stack([torch.randn(len(z), C)[:tokens] for _ in times]).double()
    weights = [weight.double() for weight in module.net.state_dict().values()]

    def x0(x: Tensor, t: int) -> Tensor:
        rows = torch.cat([x] * (1 + guided))
        epsilon = denoise(rows, torch.full((len(rows),), t), z.double(), weights)[:, :C]
        if guided:
            epsilon = epsilon[tokens:] + GUIDANCE * (epsilon[:tokens] - epsilon[tokens:])
        alpha_bar = loops.alpha_bar(t)
        return (x - (1 - alpha_bar) ** 0.5 * epsilon) / alpha_bar**0.5

    with torch.no_grad():
        return loops.ddim(x0, start.double(), noise, times, eta)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_difflosss_sample_is_ddim_with_its_guidance(eta: float, guided: bool) -> None:
    module = marfast.accelerate(diffloss(), sampler="ddim", eta=eta)
    z = torch.randn(N * (1 + guided), D, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    actual = module.sample(z, 1.0, GUIDANCE if guided else 1.0)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    expected = by_hand(marfast.restore(module), z, eta, guided)
    assert torch.equal(torch.get_rng_state(), state)
    assert (actual[:N] - expected).norm() <= 1e-5 * expected.norm()


def images(module: MAR, **options: Any) -> Tensor:
    np.random.seed(5)
    torch.manual_seed(5)
    labels = torch.tensor([3, 1])
    with torch.no_grad():
        return module.sample_tokens(2, **({"num_iter": 4, "labels": labels, "cfg": 2.5} | options))


def mar() -> MAR:
    built = TINY.build(steps="4", clip_denoised=True)
    built.load_state_dict(tiny_weights(), assign=True)
    return built


@pytest.mark.parametrize(
    "chosen",
    [
        {"sampler": "dpm++2m", "steps": 5},
        {"steps": "5-2", "sampler": "ddim", "eta": 0.5},
        {"guidance_interval": (0.2, 0.6), "steps": 6},
    ],
    ids=str,
)
def test_a_mars_images_are_those_of_generate(chosen: dict[str, Any]) -> None:
    module = marfast.accelerate(mar(), **chosen)
    settings = Settings(num_iter=4, cfg=2.5, clip_denoised=True)
    pipeline = Pipeline(FastMAR(mar()), settings)
    expected = pipeline.generate([3, 1], seed=5, **chosen)
    assert_bitwise_equal(images(module).clamp(-1, 1), expected)
    copied = pickle.loads(pickle.dumps(module))
    assert_bitwise_equal(images(copied), images(module))
    assert not torch.equal(images(marfast.accelerate(module)), images(copied))


def test_a_diffloss_alone_takes_the_first_iterations_steps() -> None:
    z = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    results = []
    for steps in ("6-2", 6):
        torch.manual_seed(2)
        results.append(marfast.accelerate(diffloss(), sampler="ddim", steps=steps).sample(z))
    assert_bitwise_equal(*results)


def test_a_difflosss_table_is_made_once_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(self: Chosen, *arguments: Any) -> Any:
        made.append(1)
        return schedule(self, *arguments)

    schedule = Chosen.schedule
    module, z = marfast.accelerate(diffloss(), sampler="ddim"), torch.zeros(N, D)
    module.sample(z)
    monkeypatch.setattr(Chosen, "schedule", counted)
    for _ in range(2):
        module.sample(z)
    assert not made
    module.gen_diffusion = diffloss("ddim5").gen_diffusion
    results = []
    for same in (module, marfast.accelerate(diffloss("ddim5"), sampler="ddim")):
        torch.manual_seed(2)
        results.append(same.sample(z))
    assert made
    assert_bitwise_equal(*results)


def test_the_models_own_code_with_its_own_sampler_is_told() -> None:
    module, z = marfast.accelerate(diffloss(), sampler="ddim"), torch.zeros(2, D)
    module.net.res_blocks[0].register_forward_hook(lambda *_: None)
    torch.manual_seed(2)
    with pytest.warns(RuntimeWarning, match=r"the sampler asked for is not taken: its own code"):
        sampled = module.sample(z)
    torch.manual_seed(2)
    assert_bitwise_equal(sampled, marfast.restore(module).sample(z).detach())


def test_training_mode_with_its_own_sampler_is_told() -> None:
    module = marfast.accelerate(mar(), sampler="ddim").train()
    with pytest.warns(RuntimeWarning, match=r"MAR.sample_tokens: the sampler asked for is not"):
        images(module)
    with pytest.warns(RuntimeWarning, match="training mode") as told:
        images(marfast.accelerate(module))
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diffusion = marfast.accelerate(diffloss(), sampler="ddim").train()
        diffusion.net(torch.zeros(N, C), torch.zeros(N), torch.zeros(N, D))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"sampler": "euler"}, "sampler: 'euler'; allowed are ddpm, ddim, dpm++2m, dpm++2m-sde"),
        ({"sampler": "ddim", "eta": -0.1}, "eta: -0.1; "),
        ({"eta": 0.5}, "eta: 0.5; allowed is 0 where the sampler is 'ddpm'"),
        ({"sampler": "ddim", "steps": 981}, "steps: 981; allowed are 1 to 980"),
        ({"steps": 1}, "steps: 1; allowed are 2 to 1000"),
        ({"guidance_interval": (0.9, 0.1)}, "guidance_interval: (0.9, 0.1); allowed"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_replaced(
    chosen: dict[str, Any], said: str
) -> None:
    module = diffloss()
    with pytest.raises(ArgumentError) as error:
        marfast.accelerate(module, **chosen)
    assert said in str(error.value)
    assert type(module) is DiffLoss


def test_steps_of_another_process_than_mars_are_refused() -> None:
    module = diffloss()
    module.gen_diffusion.alphas_cumprod = module.gen_diffusion.alphas_cumprod**2
    with pytest.raises(ArgumentError, match="steps: 5 for a diffusion process that isn't MAR's"):
        marfast.accelerate(module, steps=5)
    marfast.accelerate(module, sampler="ddim")  # over its own steps
