"""Which generations and edits replay the same graphs, and which don't."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marfast
from marfast.generation import Pipeline
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.generation.sample import sample_tokens
from marfast.generation.schedules import schedules_of
from marfast.ops import tuning
from tests.generation.graphs.cases import GLOBAL, GRAPHS, LABELS, by_one_backend, plain
from tests.generation.recorder import Recorder
from tests.models import tiny_pipeline


def test_guidance_may_change_without_another_capture(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder
) -> None:
    marfast.warmup(pipeline, batch=3, cfg=2.0)
    for options in ({"cfg": 4.0}, {"cfg": 3.0, "cfg_schedule": "constant"}):
        images = pipeline.generate(LABELS, seed=5, **options)  # type: ignore[arg-type]
        assert torch.equal(images, plain(seed=5, **options))
    assert (replays(), len(recorder.made)) == (20, GRAPHS)


@pytest.mark.parametrize(
    "other",
    [{"cfg": 1.0}, {"temperature": 0.5}, {"num_iter": 3}, {"steps": 3}, {"labels": [1]}],
    ids=str,
)
def test_other_shapes_and_settings_run_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int], other: dict[str, Any]
) -> None:
    marfast.warmup(pipeline, batch=3, cfg=2.0)
    options = {"labels": LABELS, "seed": 5, "cfg": 2.0} | other
    assert torch.equal(pipeline.generate(**options), plain(**options))
    assert replays() == 0


@by_one_backend
@pytest.mark.parametrize(
    "switch", ["tuning", "deterministic", {"allow_tf32": True}, {"fp32_precision": "tf32"}], ids=str
)
def test_what_chooses_kernels_is_part_of_the_key(
    pipeline: Pipeline, replays: Callable[[], int], monkeypatch: pytest.MonkeyPatch, switch: Any
) -> None:
    marfast.warmup(pipeline, batch=3)
    with monkeypatch.context() as patched:
        if switch == "tuning":
            patched.setattr(tuning, "is_on", lambda device: True)
            patched.setattr(tuning, "tuner_of", lambda device: None)
        elif isinstance(switch, dict):
            patched.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**switch))
        else:
            patched.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        pipeline.generate(LABELS, seed=1)
        assert replays() == 0
    pipeline.generate(LABELS, seed=1)
    assert replays() == 10


@by_one_backend
def test_guidance_given_as_a_tensor_finds_the_same_graphs(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    settings = dataclasses.replace(pipeline.settings, cfg=torch.tensor([2.5]))  # type: ignore[arg-type]
    for i in range(3):
        labels, randomness = (
            torch.tensor(LABELS),
            BatchRandomness(Generators.seeded(i, pipeline.model.device), 3, range(3)),
        )
        schedules = schedules_of(pipeline.model, settings)
        sample_tokens(pipeline.model, labels, randomness, settings, schedules)
    assert replays() == 20
    assert len(pipeline.model.graphs._met) == 1


def some(count: int, seed: int) -> Tensor:
    """Masks of three images, so many of whose 16 tokens are unknown."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(16, generator=generator) < count for _ in LABELS])


@by_one_backend
@pytest.mark.parametrize("seed", [4, None])
def test_edits_of_as_many_tokens_replay_whatever_they_are(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder, seed: Any
) -> None:
    tokens = torch.rand(3, 16, 16) * 2 - 1
    assert marfast.warmup(pipeline, batch=3, unknown=9, cfg=2.0).graphs == 3 + 3  # of the model's 5
    for i, (mask, labels) in enumerate([(some(9, 1), LABELS), (some(9, 2), [0, None, 1])]):
        made = []
        for model in (pipeline, tiny_pipeline()):
            torch.manual_seed(1)
            np.random.seed(1)
            GLOBAL.manual_seed(2)
            made.append(model.edit(tokens + i, mask, labels, seed=seed, cfg=2.0))
        assert torch.equal(*made)
        assert replays() == 6 * (i + 1)
    assert len(recorder.made) == 6, "captured once"


@by_one_backend
def test_an_edit_of_all_tokens_replays_a_generations_graphs_and_others_dont(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    marfast.warmup(pipeline, batch=3)
    tokens = torch.zeros(3, 16, 16)
    expected = tiny_pipeline().edit(tokens, some(16, 0), LABELS, seed=3)
    assert torch.equal(pipeline.edit(tokens, some(16, 0), LABELS, seed=3), expected)
    assert replays() == 10
    pipeline.edit(tokens, some(15, 0), LABELS, seed=3, num_iter=5)
    assert replays() == 10
