"""The diffusion process: respacing, schedules, and one step said in two ways."""

import numpy as np
import pytest
import torch
from torch import Tensor

from marfast.reference import create_diffusion, space_timesteps
from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.respacing import NUM_TRAIN_TIMESTEPS
from marfast.reference.samplers import Coefficients
from marfast.verifying.case import numbers
from tests.helpers import assert_bitwise_equal


@pytest.mark.parametrize(
    ("respacing", "expected"),
    [
        ("1", {0}),
        ("2", {0, 999}),
        ("1,1", {0, 500}),
        ("3,1,1", {0, 166, 333, 334, 667}),  # 1000 = 334 + 333 + 333; 166.5 rounds to even
        ([2, 2], {0, 499, 500, 999}),
        ("ddim4", {0, 250, 500, 750}),
        ("0,2", {500, 999}),
    ],
)
def test_respacing_keeps(respacing: str | list[int], expected: set[int]) -> None:
    assert space_timesteps(NUM_TRAIN_TIMESTEPS, respacing) == expected


# ddim1: every stride below 1000 keeps two steps or more
@pytest.mark.parametrize(
    "respacing", ["1001", "ddim1", "500,501", "ddim300", "ddim1001", [334, 334, 334]]
)
def test_a_respacing_that_cannot_be_is_named(respacing: str | list[int]) -> None:
    with pytest.raises(ValueError, match="respacing: ") as error:
        create_diffusion(respacing)
    assert repr(respacing) in str(error.value)


@pytest.mark.parametrize("respacing", ["", None, "1000", "100", "25", "ddim50", "10,15,20"])
def test_a_respaced_process_visits_the_same_signal_levels(respacing: str | None) -> None:
    full, process = create_diffusion(""), create_diffusion(respacing)
    kept = process.timestep_map
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    np.testing.assert_allclose(process.alphas_cumprod, full.alphas_cumprod[kept], rtol=1e-9)
    assert np.isfinite(process.posterior_log_variance_clipped).all()


def test_betas_end_at_their_ceiling() -> None:
    betas = create_diffusion("").betas
    assert len(betas) == NUM_TRAIN_TIMESTEPS
    assert (np.diff(betas) > 0).all()
    assert 0 < betas[0] < 1e-4
    assert betas[-1] == pytest.approx(0.999)


def test_one_step_is_refused_where_sampling_starts() -> None:
    process = create_diffusion("1")
    with pytest.raises(ValueError, match=r"sampling steps: 1, .* allowed are 2 and more"):
        process.sampling_schedule()
    with pytest.raises(ValueError, match="sampling steps: 1, "):
        process.p_sample_loop(lambda x, t: torch.cat([x, x], dim=1), (2, 4))


def test_the_sampling_schedule_runs_backwards() -> None:
    process = create_diffusion("10,15,20")
    coefficients, timesteps = process.sampling_schedule()
    assert coefficients.shape == (45, 8)
    assert coefficients.dtype == torch.float32
    assert timesteps.tolist() == process.timestep_map[::-1]
    columns = Coefficients(*coefficients.unbind(1))
    assert columns.noise.tolist() == [1.0] * 44 + [0.0]
    assert_bitwise_equal(columns.x, torch.from_numpy(process.posterior_mean_coef2).float().flip(0))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("respacing", ["7", "ddim5"])
def test_steps_by_the_schedule_are_the_sampler(
    respacing: str, temperature: float, clip: bool
) -> None:
    """`ddpm_step` over `sampling_schedule` gives the bits of `p_sample_loop`, given its noise."""
    process = create_diffusion(respacing)
    start, mix = numbers(6, 8, seed=1), numbers(8, 16, seed=2, scale=0.4)

    def head(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x @ mix) + t[:, None] / 1000

    torch.manual_seed(3)
    expected = process.p_sample_loop(head, (6, 8), start, clip, temperature=temperature)
    torch.manual_seed(3)
    x, options = start, HeadOptions(1, temperature, clip)
    for row, t in zip(*process.sampling_schedule(), strict=True):
        output = head(x, t.expand(6))
        x = ddpm_step(x, output, torch.randn_like(x), row, torch.ones(1), options)
    assert_bitwise_equal(x, expected)


def test_training_drives_the_variance_alone_by_the_bound() -> None:
    process = create_diffusion("")
    output = numbers(5, 6, seed=4).requires_grad_()
    t = torch.tensor([0, 1, 500, 998, 999])
    losses = process.training_losses(lambda x, t: output, numbers(5, 3, seed=5).clamp(-1, 1), t)
    losses["vb"].sum().backward()
    assert output.grad is not None
    assert not output.grad[:, :3].any()
    assert output.grad[:, 3:].any(dim=1).all()
