"""The loop as graphs, proved by a recorder in CUDA graphs' place: same images, few captures."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marfast
from marfast import profiling
from marfast.generation import Pipeline, graphs
from marfast.generation.graphs import Graphs
from marfast.generation.randomness import BatchRandomness, Generators
from marfast.generation.sample import sample_tokens
from marfast.generation.schedules import schedules_of
from marfast.model import FastMAR
from marfast.ops import tuning
from tests.generation.recorder import Recorder
from tests.models import tiny_pipeline

LABELS = [3, 1, 4]
GRAPHS = 5 + 4
"""Of five iterations, which predict 1, 3, 3, 5 and 4 tokens."""
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


by_one_backend = pytest.mark.parametrize("backend", ["auto"], indirect=True)
"""What has nothing to do with bits."""


def plain(labels: Any = LABELS, **options: Any) -> Tensor:
    return tiny_pipeline().generate(labels, **options)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_a_replay_makes_the_images_of_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder, cfg: float
) -> None:
    report = marfast.warmup(pipeline, batch=3, cfg=cfg)
    assert (report.graphs, report.no_graphs, len(recorder.made)) == (GRAPHS, "", GRAPHS)
    for i, (labels, seed) in enumerate([(LABELS, 0), ([0, None, 9], 1), (LABELS, 0)]):
        images = pipeline.generate(labels, seed=seed, cfg=cfg)
        assert torch.equal(images, plain(labels, seed=seed, cfg=cfg))
        assert replays() == 10 * (i + 1)
    assert len(recorder.made) == GRAPHS, "captured once"


@by_one_backend
@pytest.mark.parametrize(("num_iter", "heads"), [(16, 1), (5, 4), (2, 2), (1, 1)])
def test_a_head_is_captured_once_for_each_number_of_tokens(
    pipeline: Pipeline, recorder: Recorder, num_iter: int, heads: int
) -> None:
    """K = L predicts one token in each iteration."""
    assert marfast.warmup(pipeline, batch=3, num_iter=num_iter).graphs == num_iter + heads
    drawing = [graph for graph in recorder.made if graph.generators]
    assert len(drawing) == heads, "step noise is the head's"
    images = pipeline.generate(LABELS, seed=4, num_iter=num_iter)
    assert torch.equal(images, plain(seed=4, num_iter=num_iter))
    assert sum(graph.replays for graph in drawing) == num_iter


@by_one_backend
def test_the_second_call_of_a_kind_is_captured(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder
) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = [
        (LABELS, {"seed": 0, "cfg": 2.0}),
        ([1], {"seed": 0, "cfg": 2.0}),
        ([0, None, 9], {"seed": 1, "cfg": 3.0}),
        (LABELS, {"seed": [1, 2, 3]}),
        ([4, 4, 4], {"seed": [5, 6, 7]}),
        (LABELS, {"seed": 3, "cfg": 2.5}),
    ]
    replayed = []
    for labels, options in calls:
        before = replays()
        images = pipeline.generate(labels, **options)
        assert torch.equal(images, plain(labels, **options))
        replayed.append(replays() - before)
    assert replayed == [0, 0, 10, 0, 10, 10]
    assert len(recorder.made) == 2 * GRAPHS


@by_one_backend
def test_generators_are_left_as_by_the_plain_loop_by_a_capture_too(pipeline: Pipeline) -> None:
    def run(model: Pipeline) -> list[Any]:
        np.random.seed(1)
        torch.manual_seed(1)
        _GLOBAL.manual_seed(2)
        images = [model.generate(LABELS, cfg=2.0).tolist() for _ in range(3)]
        states = (torch.get_rng_state(), _GLOBAL.get_state())
        return [np.random.get_state()[2], *(s.tolist() for s in states), images]

    assert run(pipeline) == run(tiny_pipeline())


@by_one_backend
def test_it_can_be_turned_off(
    pipeline: Pipeline, replays: Callable[[], int], recorder: Recorder
) -> None:
    with graphs.off():
        for _ in range(3):
            pipeline.generate(LABELS, seed=0)
    assert not recorder.made
    pipeline.generate(LABELS, seed=0)
    pipeline.generate(LABELS, seed=0)
    assert replays() == 10
    with graphs.off():
        assert torch.equal(pipeline.generate(LABELS, seed=1), plain(seed=1))
    assert replays() == 10


@by_one_backend
def test_nothing_is_captured_while_ranges_are_seen_or_a_graph_is_captured(
    pipeline: Pipeline, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.generate(LABELS, seed=0)
    with profiling.timed() as seconds:
        pipeline.generate(LABELS, seed=0)
    assert "encoder" in seconds
    monkeypatch.setattr(graphs, "is_capturing", lambda: True)
    pipeline.generate(LABELS, seed=0)
    assert not recorder.made


@by_one_backend
def test_while_a_loop_is_used_others_launch_kernel_by_kernel(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    marfast.warmup(pipeline, batch=3)
    inside: list[Tensor] = []

    def progress(done: int, of: int) -> None:
        if done == 2:
            inside.append(pipeline.generate([5, 6, 7], seed=2))

    images = pipeline.generate(LABELS, seed=1, progress=progress)
    assert torch.equal(images, plain(seed=1))
    assert torch.equal(inside[0], plain([5, 6, 7], seed=2))
    assert replays() == 10


@by_one_backend
def test_a_replay_that_could_not_begin_leaves_no_trace(
    pipeline: Pipeline, replays: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    marfast.warmup(pipeline, batch=3)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BatchRandomness, "orders", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.generate(LABELS, seed=1)
    for seed in (2, 3):
        assert torch.equal(pipeline.generate(LABELS, seed=seed), plain(seed=seed))
    assert replays() == 20


@by_one_backend
def test_it_works_after_a_capture_in_inference_mode(pipeline: Pipeline) -> None:
    with torch.inference_mode():
        for _ in range(2):
            pipeline.generate(LABELS, seed=0)
    assert torch.equal(pipeline.generate(LABELS, seed=1), plain(seed=1))


@by_one_backend
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


def test_parts_of_a_batch_have_graphs_each(
    pipeline: Pipeline, replays: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "largest_part", 2)
    assert marfast.warmup(pipeline, batch=3).graphs == 2 * GRAPHS
    assert torch.equal(pipeline.generate(LABELS, seed=8), plain(seed=8, part=2))
    assert replays() == 20


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
    assert replays() == 10


def test_weights_written_in_place_are_followed_and_new_ones_run_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    with marfast.backend("reference"):
        marfast.warmup(pipeline, batch=3)
        for parameter in (pipeline.model.module.z_proj.weight, pipeline.model.head.weights[0]):
            with torch.no_grad():
                parameter.mul_(1.5)
        images, before = pipeline.generate(LABELS, seed=1), replays()
        assert before == 10
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


@by_one_backend
def test_the_least_recently_used_are_dropped_when_memory_is_full(pipeline: Pipeline) -> None:
    pipeline.model.graphs.limit = 250  # two of 100
    for batch in (1, 2, 1, 3):
        marfast.warmup(pipeline, batch=batch)
    images = [key[0] for key in pipeline.model.graphs.kept]
    assert images == [1, 3]


@by_one_backend
def test_graphs_that_do_not_fit_together_do_not_take_turns(
    pipeline: Pipeline, recorder: Recorder
) -> None:
    pipeline.model.graphs.limit = 150  # one of 100
    for i in range(8):
        labels = LABELS[: 1 + i % 2]
        assert torch.equal(pipeline.generate(labels, seed=i), plain(labels, seed=i))
    assert len(recorder.made) == 2 * GRAPHS
    assert len(pipeline.model.graphs.kept) == 1


@by_one_backend
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("limit", "options", "reason"),
    [
        (50, {}, "it needs 100 bytes or more; graphs may hold 50"),
        (150, {"elsewhere": 60}, "it needs 160 bytes or more; graphs may hold 150"),
        (1000, {"fail": "operation not permitted when stream is capturing"}, "not permitted when"),
    ],
)
def test_a_failed_capture_is_told_once_and_the_plain_loop_goes_on(
    limit: int, options: dict[str, Any], reason: str, asked: bool
) -> None:
    pipeline, recorder = tiny_pipeline(), Recorder(**options)
    pipeline.model.graphs = Graphs(recorder, limit)
    if asked:
        with pytest.warns(UserWarning, match=reason):
            report = marfast.warmup(pipeline, batch=3)
        assert report.graphs == 0
        assert reason in report.no_graphs
    else:
        pipeline.generate(LABELS, seed=0)
        with pytest.warns(RuntimeWarning, match=reason):
            images = pipeline.generate(LABELS, seed=1)
        assert torch.equal(images, plain(seed=1))
    made = len(recorder.made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (1, 2):
            assert torch.equal(pipeline.generate(LABELS, seed=seed), plain(seed=seed))
    assert len(recorder.made) == made


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
            _GLOBAL.manual_seed(2)
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
