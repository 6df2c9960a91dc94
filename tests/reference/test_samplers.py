"""Which timesteps samplers visit, how steps fall over iterations, and what tables promise."""

import numpy as np
import pytest
import torch

from marfast.reference import GaussianDiffusion, create_diffusion
from marfast.reference.respacing import (
    LAST_TIMESTEP,
    ends_of,
    sampling_timesteps,
    steps_of_iterations,
)
from marfast.reference.samplers import (
    LEAST_SIGNAL,
    SAMPLERS,
    Coefficients,
    Prediction,
    ddpm,
    diffusion_levels,
    flow_steps,
    sampling_schedule,
    table_of,
)
from tests.helpers import assert_bitwise_equal

OTHERS = SAMPLERS[1:]


@pytest.mark.parametrize(
    ("steps", "sampler", "expected"),
    [
        (4, "ddpm", [0, 333, 666, 999]),
        (4, "ddim", [245, 490, 735, 980]),
        ("4", "ddim", [245, 490, 735, 980]),
        (1, "dpm++2m", [980]),
        ("ddim4", "ddpm", [0, 250, 500, 750]),  # a respacing, whatever the sampler
        ("ddim4", "ddim", [0, 250, 500, 750]),
        ("2,1,2", "dpm++2m-sde", [0, 333, 334, 667]),  # 999 is past the last
    ],
)
def test_a_sampler_visits(steps: int | str, sampler: str, expected: list[int]) -> None:
    assert sorted(sampling_timesteps(steps, sampler)) == expected


def test_as_many_steps_as_asked_for() -> None:
    for steps in (*range(1, 130), 979, 980):
        assert len(sampling_timesteps(steps, "ddim")) == steps


@pytest.mark.parametrize(
    ("steps", "sampler"),
    [(1, "ddpm"), (1001, "ddpm"), (0, "ddim"), (981, "dpm++2m"), ("0", "ddim")],
)
def test_steps_that_a_sampler_cannot_take(steps: int | str, sampler: str) -> None:
    with pytest.raises(ValueError, match="step"):
        sampling_timesteps(steps, sampler)


def test_steps_fall_as_disa_has_them() -> None:
    assert steps_of_iterations(25, 3) == [25] * 3
    assert steps_of_iterations("ddim50", 2) == ["ddim50"] * 2
    assert steps_of_iterations("50-5", 6) == [50, 41, 32, 23, 14, 5]
    assert steps_of_iterations("50-5", 1) == [5]
    expected = [5 + int((63 - k) / 63 * 45) for k in range(64)]  # DiSA's own expression
    assert steps_of_iterations("50-5", 64) == expected
    assert (expected[0], expected[-1]) == (50, 5)
    assert ends_of("ddim50") == ("ddim50", "ddim50")


@pytest.mark.parametrize("sampler", OTHERS)
@pytest.mark.parametrize("respacing", ["100", "10", "", "2", "500"])
def test_no_step_starts_where_almost_no_signal_is(sampler: str, respacing: str) -> None:
    """At t = 999 of the cosine schedule x_0 = (x − σ ε)/α has 20,000 times the head's error."""
    process = create_diffusion(respacing)
    assert Coefficients(*ddpm(process).coefficients[0]).q > 20_000
    table = table_of(process, sampler)
    assert (Coefficients(*table.coefficients.unbind(1)).q <= 1 / LEAST_SIGNAL).all()
    assert table.timesteps.max() <= LAST_TIMESTEP
    kept = sum(t <= LAST_TIMESTEP for t in process.timestep_map)
    assert len(table.timesteps) == len(table.coefficients) == kept


def test_the_last_timestep_is_the_last_with_enough_signal() -> None:
    alpha = np.sqrt(create_diffusion("").alphas_cumprod)
    assert int((alpha >= LEAST_SIGNAL).sum()) - 1 == LAST_TIMESTEP


@pytest.mark.parametrize("sampler", OTHERS)
def test_the_last_step_gives_x0_without_noise(sampler: str) -> None:
    for steps in (1, 2, 7):
        process = GaussianDiffusion(sampling_timesteps(steps, sampler))
        last = Coefficients(*table_of(process, sampler, float(sampler == "ddim")).coefficients[-1])
        assert (last.x0, last.x, last.noise, last.previous) == (1, 0, 0, 0)


def test_what_tables_say_of_their_steps() -> None:
    process = create_diffusion("20")
    flags = {name: table_of(process, name)[2:] for name in SAMPLERS}
    multistep = {"dpm++2m": True, "dpm++2m-sde": True}
    assert flags == {name: (name == "ddpm", multistep.get(name, False)) for name in SAMPLERS}
    for ours, theirs in zip(sampling_schedule(process), ddpm(process), strict=False):
        assert_bitwise_equal(ours.double(), theirs.double())
    for name in OTHERS:
        assert table_of(process, name).coefficients.isfinite().all()
    assert not Coefficients(*table_of(process, "dpm++2m").coefficients[0]).previous


def test_ddim_with_all_noise_is_ddpm_with_the_smaller_variance() -> None:
    process = create_diffusion("ddim50")
    ours = Coefficients(*table_of(process, "ddim", 1.0).coefficients.unbind(1))
    ddpms = Coefficients(*ddpm(process).coefficients.unbind(1))
    torch.testing.assert_close(ours.x0, ddpms.x0)
    torch.testing.assert_close(ours.x, ddpms.x, rtol=1e-5, atol=1e-7)
    sigma = torch.exp(0.5 * ddpms.log_posterior) * ddpms.noise
    torch.testing.assert_close(ours.noise, sigma)


def test_levels_end_in_the_data() -> None:
    levels = diffusion_levels(create_diffusion("7"))
    assert (levels.alpha[-1], levels.sigma[-1]) == (1, 0)
    assert (np.diff(levels.alpha) > 0).all()


@pytest.mark.parametrize("prediction", ["velocity", "x0"])
def test_a_flows_steps_may_be_of_any_size(prediction: Prediction) -> None:
    t, dt = np.array([0.0, 0.3, 0.7, 0.96]), np.array([0.3, 0.35, 0.25, 0.02])
    stochastic, least = np.array([True, True, False, False]), 0.05
    told = torch.from_numpy(t).float()
    table = flow_steps(t, dt, stochastic, told, prediction, least)
    assert torch.equal(table.timesteps, told)
    x, output, noise = np.random.RandomState(0).randn(3, 5)
    for step, row in enumerate(table.coefficients.double().numpy()):
        now = Coefficients(*row)
        actual = now.x0 * (now.p * x - now.q * output) + now.x * x + now.noise * noise
        to_data = (output - x) / max(1 - t[step], least)
        velocity = output if prediction == "velocity" else to_data
        expected = x + velocity * dt[step]
        if stochastic[step]:
            score = (t[step] * velocity - x) / (1 - t[step])
            diffusion = np.sqrt(2 * (1 - t[step]) * dt[step]) * noise
            expected = expected + (1 - t[step]) * score * dt[step] + diffusion
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)
