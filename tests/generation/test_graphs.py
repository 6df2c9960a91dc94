"""The loop as graphs, proved by a recorder in CUDA graphs' place: same images, few captures."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marfast
from marfast import profiling
from marfast.generation import Pipeline
from marfast.generation.graphs import Graphs
from marfast.generation.randomness import Generators
from marfast.model import FastMAR
from tests.generation.recorder import Recorder
from tests.models import tiny_pipeline

LABELS = [3, 1, 4]
_GLOBAL = torch.Generator()


@pytest.fixture(autouse=True)
def a_device_with_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where step noise comes from another generator than initial noise."""

    def seeded(seed: int, device: torch.device) -> Generators:
        cpu, other = torch.Generator(), torch.Generator()
        return Generators(
            np.random.RandomState(seed), cpu.manual_seed(seed), other.manual_seed(~seed % 2**32)
        )

    def global_ones(device: torch.device) -> Generators:
        return Generators(np.random, torch.default_generator, _GLOBAL)

    monkeypatch.setattr(Generators, "seeded", seeded)
    monkeypatch.setattr(Generators, "global_ones", global_ones)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def pipeline(recorder: Recorder) -> Pipeline:
    made = tiny_pipeline()
    made.model.graphs = Graphs(recorder)
    return made


@pytest.fixture
def replays(recorder: Recorder) -> Callable[[], int]:
    return lambda: sum(graph.replays for graph in recorder.made)


@pytest.fixture(params=["auto", "reference"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with marfast.backend(request.param):
        yield


def plain(labels: Any = LABELS, **options: Any) -> Tensor:
    return tiny_pipeline().generate(labels, **options)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_a_replay_makes_the_images_of_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder, cfg: float
) -> None:
    report = marfast.warmup(pipeline, batch=3, cfg=cfg)
    assert (report.graphs, report.no_graphs, len(recorder.made)) == (5, "", 5)
    for i, (labels, seed) in enumerate([(LABELS, 0), ([0, None, 9], 1), (LABELS, 0)]):
        images = pipeline.generate(labels, seed=seed, cfg=cfg)
        assert torch.equal(images, plain(labels, seed=seed, cfg=cfg))
        assert replays() == 5 * (i + 1)
    assert len(recorder.made) == 5, "captured once"


def test_a_replay_lies_in_its_iterations_range(pipeline: Pipeline) -> None:
    marfast.warmup(pipeline, batch=3)
    with profiling.timed() as seconds:
        pipeline.generate(LABELS, seed=0)
    assert {f"iteration {k}" for k in range(5)} <= seconds.keys()


def test_guidance_may_change_without_another_capture(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder
) -> None:
    marfast.warmup(pipeline, batch=3, cfg=2.0)
    for options in ({"cfg": 4.0}, {"cfg": 3.0, "cfg_schedule": "constant"}):
        images = pipeline.generate(LABELS, seed=5, **options)  # type: ignore[arg-type]
        assert torch.equal(images, plain(seed=5, **options))
    assert (replays(), len(recorder.made)) == (10, 5)


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


def test_parts_of_a_batch_have_graphs_each(
    pipeline: Pipeline, replays: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "largest_part", 2)
    assert marfast.warmup(pipeline, batch=3).graphs == 10
    assert torch.equal(pipeline.generate(LABELS, seed=8), plain(seed=8, part=2))
    assert replays() == 10


def test_generators_are_left_as_by_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    def run(model: Pipeline) -> tuple[Any, ...]:
        np.random.seed(1)
        torch.manual_seed(1)
        _GLOBAL.manual_seed(2)
        images = model.generate(LABELS, cfg=2.0)
        states = (torch.get_rng_state(), _GLOBAL.get_state())
        return np.random.get_state()[2], *(s.numpy().tobytes() for s in states), images.tolist()

    marfast.warmup(pipeline, batch=3, cfg=2.0)
    assert run(pipeline) == run(tiny_pipeline())
    assert replays() == 5


def test_weights_written_in_place_are_followed_and_new_ones_run_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    with marfast.backend("reference"):
        marfast.warmup(pipeline, batch=3)
        for parameter in (pipeline.model.module.z_proj.weight, pipeline.model.head.weights[0]):
            with torch.no_grad():
                parameter.mul_(1.5)
        images, before = pipeline.generate(LABELS, seed=1), replays()
        assert before == 5
        other = tiny_pipeline()
        other.model.module.load_state_dict(pipeline.model.module.state_dict())
        assert torch.equal(images, other.generate(LABELS, seed=1))
        state = {k: v.clone() for k, v in pipeline.model.module.state_dict().items()}
        pipeline.model.module.load_state_dict(state, assign=True)
        assert torch.equal(pipeline.generate(LABELS, seed=1), images)
        assert replays() == before


def test_weights_that_were_cast_for_the_blocks_are_followed(recorder: Recorder) -> None:
    with marfast.backend("torch"):
        tiny = tiny_pipeline()
        pipeline = Pipeline(FastMAR(tiny.model.module, torch.bfloat16), tiny.settings)
        pipeline.model.graphs = Graphs(recorder)
        marfast.warmup(pipeline, batch=3)
        before = pipeline.generate(LABELS, seed=1)
        with torch.no_grad():
            pipeline.model.module.encoder_blocks[0].mlp.fc1.weight.mul_(1.5)
        after = pipeline.generate(LABELS, seed=1)
        fresh = Pipeline(FastMAR(pipeline.model.module, torch.bfloat16), pipeline.settings)
        assert torch.equal(after, fresh.generate(LABELS, seed=1))
        assert not torch.equal(after, before)


def test_the_least_recently_used_are_dropped_when_memory_is_full(pipeline: Pipeline) -> None:
    pipeline.model.graphs.limit = 250  # two of 100
    for batch in (1, 2, 1, 3):
        marfast.warmup(pipeline, batch=batch)
    images = [key[0] for key in pipeline.model.graphs.kept]
    assert images == [1, 3]


@pytest.mark.parametrize(
    ("limit", "fail", "reason"),
    [
        (50, "", "it needs 100 bytes; graphs may hold 50"),
        (1000, "operation not permitted when stream is capturing", "operation not permitted"),
    ],
)
def test_a_failed_capture_is_told_and_the_plain_loop_goes_on(
    limit: int, fail: str, reason: str
) -> None:
    pipeline = tiny_pipeline()
    pipeline.model.graphs = Graphs(Recorder(fail=fail), limit)
    with pytest.warns(UserWarning, match=reason):
        report = marfast.warmup(pipeline, batch=3)
    assert report.graphs == 0
    assert reason in report.no_graphs
    assert torch.equal(pipeline.generate(LABELS, seed=1), plain(seed=1))
