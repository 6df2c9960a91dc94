"""The backend `torch`: the head with adaLN hoisted, in PyTorch's own operators, for any device."""

from collections.abc import Iterator

import pytest
import torch

from marfast import ops
from marfast.ops.head import gpu
from marfast.ops.op import OPS
from tests.helpers import assert_as_accurate, assert_bitwise_equal
from tests.ops.heads import sample_inputs, sampler_inputs

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def by_torch() -> Iterator[None]:
    with ops.backend("torch"):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"guided": False, "width": 33},
        {"tokens": 1, "depth": 0},
        {"channels": 3, "frequencies": 7},
    ],
    ids=str,
)
def test_samples_are_as_accurate_as_the_references(sizes, dtype):
    cases = [
        sample_inputs(**{"tokens": 6, "width": 96} | sizes, steps=9, dtype=dtype, seed=seed)
        for seed in range(8)
    ]
    assert_as_accurate(ops.ddpm_sample, ops.ddpm_sample.plain, cases)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++2m-sde"])
def test_other_samplers_are_as_accurate_as_the_references(sampler):
    cases = [sampler_inputs(sampler, tokens=5, width=64, seed=seed) for seed in range(8)]
    assert_as_accurate(ops.ddpm_sample, ops.ddpm_sample.plain, cases)


@pytest.mark.parametrize("name", sorted(OPS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_op_is_as_accurate_as_its_reference(name, dtype):
    op = OPS[name]
    cases = [tuple(op.example_args(dtype, seed=seed)) for seed in range(8)]
    assert_as_accurate(op, op.plain, cases)


def test_float16_stays_finite_where_the_original_overflows():
    args = sample_inputs(6, channels=3, steps=9, clip=False, dtype=torch.float16)
    assert ops.ddpm_sample.plain(*args).isnan().any()
    assert ops.ddpm_sample(*args).isfinite().all()


def test_a_float64_sample_is_computed_in_float64():
    noise, step_noise, cond, weights, schedule, timesteps, guidance, *options = sample_inputs()
    given = (noise, step_noise, cond, schedule, guidance)
    noise, step_noise, cond, schedule, guidance = (tensor.double() for tensor in given)
    weights = [weight.double() for weight in weights]
    args = (noise, step_noise, cond, weights, schedule, timesteps, guidance, *options)
    exact = ops.ddpm_sample.plain(*args)
    assert (ops.ddpm_sample(*args) - exact).abs().max() <= 1e-12 * exact.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", [False, True])
def test_a_step_is_the_references_to_the_bit(clip, dtype):
    a = OPS["ddpm_step"].example_args(dtype)._replace(clip_denoised=clip, temperature=0.9)
    assert_bitwise_equal(ops.ddpm_step(*a), ops.ddpm_step.plain(*a))


@pytest.mark.parametrize("pairs", [1, 7, 13])
def test_chunks_of_steps_and_groups_of_tokens_change_rounding_alone(monkeypatch, pairs):
    args = sample_inputs(5, steps=4)
    whole = ops.ddpm_sample(*args)
    numbers = (3 * 2 + 2) * 40
    monkeypatch.setattr(gpu, "MODULATION_BUDGET", 4 * numbers * pairs)
    torch.testing.assert_close(ops.ddpm_sample(*args), whole, rtol=1e-5, atol=1e-5)
