"""`generate` with other samplers: as a loop over `reference.MAR`'s own parts would do it."""

from typing import Any

import pytest
import torch
from torch import Tensor

import marfast
from marfast.checkpoints import Settings
from marfast.errors import ArgumentError
from marfast.generation.schedules import schedules_of
from marfast.model.schedule import Sampling, Schedule
from marfast.ops import choice
from marfast.reference.samplers import SAMPLERS
from tests.helpers import assert_bitwise_equal
from tests.models import tiny_pipeline

LABELS = [3, 1]
OTHERS: list[dict[str, Any]] = [
    {"sampler": "ddim"},
    {"sampler": "ddim", "eta": 1.0},
    {"sampler": "dpm++2m"},
    {"sampler": "dpm++2m-sde"},
    {"steps": "6-2"},
    {"guidance_interval": (0.2, 0.6)},
]


def generate(**settings: Any) -> Tensor:
    return tiny_pipeline().generate(LABELS, **({"seed": 1, "num_iter": 3, "cfg": 2.5} | settings))


@pytest.mark.parametrize("settings", OTHERS, ids=str)
def test_the_kernels_make_the_references_images(settings: dict[str, Any]) -> None:
    images = generate(**settings)
    with choice.backend("reference"):
        torch.testing.assert_close(images, generate(**settings), rtol=0, atol=1e-4)
    assert not torch.equal(images, generate())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_reaches_every_sampler(sampler: str) -> None:
    guided, more, none = (generate(sampler=sampler, cfg=cfg) for cfg in (2.5, 4.0, 1.0))
    assert not torch.equal(guided, none)
    assert not torch.equal(guided, more)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_splitting_the_noise_changes_no_image(sampler: str, monkeypatch) -> None:
    """A multistep sampler's x_0 passes from one call of the op to the next."""
    whole = generate(sampler=sampler)
    monkeypatch.setattr("marfast.generation.randomness.NOISE_MEMORY", 4)
    assert_bitwise_equal(generate(sampler=sampler), whole)


def test_an_interval_of_everything_is_none() -> None:
    assert_bitwise_equal(generate(guidance_interval=(0.0, 1.0)), generate())


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++2m"])
def test_an_interval_of_nothing_is_no_guidance(sampler: str) -> None:
    outside = generate(sampler=sampler, guidance_interval=(0.0, 0.0), steps=3)
    for steps in (3,) if sampler == "dpm++2m" else ():  # DDPM's last t is 0, and guided
        # the random numbers of guidance are drawn, of which half are used
        assert not torch.equal(outside, generate(sampler=sampler, steps=steps))
    rows: list[int] = []

    def watch(op: Any, a: Any, _: Any) -> None:
        if op.name == "ddpm_sample":
            rows.append(len(a.cond) // a.noise.shape[-2])

    with choice.watched(watch):
        generate(sampler=sampler, guidance_interval=(0.0, 0.0), steps=3)
    assert set(rows) == ({1, 2} if sampler == "ddpm" else {1})


def test_guided_steps_are_those_of_the_interval() -> None:
    model = tiny_pipeline().model
    schedule = model.schedule(10, Sampling("ddim", 0.0, (0.2, 0.5)))
    times = schedule.timesteps.tolist()
    assert [times[s] for s in schedule.guided] == [t for t in times if 200 <= t <= 500]
    runs = list(schedule.runs(range(2, 9)))
    assert [s for run, _ in runs for s in range(run.start, run.stop)] == list(range(2, 9))
    for run, guided in runs:
        assert all((s in schedule.guided) == guided for s in range(run.start, run.stop))
    assert not model.schedule(10, Sampling("ddim", 0.0, (0.001, 0.002))).guided


def test_each_iteration_has_its_steps() -> None:
    model = tiny_pipeline().model
    falling = schedules_of(model, Settings(num_iter=4, steps="8-2", sampler="ddim"))
    assert [len(schedule) for schedule in falling] == [8, 6, 4, 2]
    own = schedules_of(model, Settings(num_iter=2, steps=9), own=True)
    assert [len(schedule) for schedule in own] == [4, 4]
    assert own[0] is own[1]


def test_a_respacing_is_no_sampler() -> None:
    """ "ddim5" says which timesteps DDPM visits."""
    assert_bitwise_equal(generate(steps="ddim5"), generate(steps="ddim5", sampler="ddpm"))
    assert not torch.equal(generate(steps="ddim5"), generate(steps="ddim5", sampler="ddim"))


def test_deterministic_samplers_have_no_use_for_a_temperature() -> None:
    for sampler in ("ddim", "dpm++2m"):
        cold = generate(sampler=sampler, temperature=0.0)
        assert_bitwise_equal(cold, generate(sampler=sampler))
    assert not torch.equal(
        generate(sampler="dpm++2m-sde", temperature=0.5), generate(sampler="dpm++2m-sde")
    )


def test_a_loaded_model_keeps_the_sampler_it_was_told() -> None:
    told: dict[str, Any] = {"sampler": "ddim", "steps": "3-1", "eta": 0.5}
    told["guidance_interval"] = (0.1, 0.9)
    loaded = marfast.load("fashion-mnist", **told)
    expected = marfast.load("fashion-mnist").generate([3], seed=1, num_iter=2, **told)
    assert_bitwise_equal(loaded.generate([3], seed=1, num_iter=2), expected)
    with pytest.raises(ArgumentError, match="steps: 0; allowed are 1 to 980"):
        marfast.load("fashion-mnist", sampler="ddim", steps=0)


def test_another_sampler_than_the_models_has_its_own_eta() -> None:
    loaded = marfast.load("fashion-mnist", sampler="ddim", eta=0.5, guidance_interval=(0.1, 0.9))
    few: dict[str, Any] = {"seed": 1, "num_iter": 1, "steps": 3}
    found = loaded.generate([3], sampler="ddpm", guidance_interval=(0.0, 1.0), **few)
    assert_bitwise_equal(found, marfast.load("fashion-mnist").generate([3], **few))


def test_a_table_of_no_interval_is_guided_throughout() -> None:
    schedule = tiny_pipeline().model.schedule()
    assert isinstance(schedule, Schedule)
    assert schedule.guided == range(len(schedule))
