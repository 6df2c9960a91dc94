"""The loop as graphs, proved by a recorder in CUDA graphs' place: same images, few captures."""

import gc
import weakref
from collections.abc import Callable
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
from marfast.generation.randomness import BatchRandomness
from marfast.model import FastMAR
from tests.generation.graphs.cases import GLOBAL, GRAPHS, LABELS, by_one_backend, plain
from tests.generation.recorder import RecordedGraph, Recorder
from tests.models import tiny_pipeline


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
        GLOBAL.manual_seed(2)
        images = [model.generate(LABELS, cfg=2.0).tolist() for _ in range(3)]
        states = (torch.get_rng_state(), GLOBAL.get_state())
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
        GLOBAL.manual_seed(2)
        images = model.generate(LABELS, cfg=2.0)
        states = (torch.get_rng_state(), GLOBAL.get_state())
        return np.random.get_state()[2], *(s.numpy().tobytes() for s in states), images.tolist()

    marfast.warmup(pipeline, batch=3, cfg=2.0)
    assert run(pipeline) == run(tiny_pipeline())
    assert replays() == 10


def test_weights_written_in_place_are_followed_and_new_ones_run_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    module = pipeline.model.module
    with marfast.backend("reference"):
        marfast.warmup(pipeline, batch=3)
        for parameter in (module.z_proj.weight, module.diffloss.net.time_embed.mlp[0].weight):
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


@by_one_backend
@pytest.mark.parametrize("part", ["diffloss.net.res_blocks.1", "decoder_norm", "encoder_blocks.0"])
def test_who_hooks_into_a_module_runs_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int], part: str
) -> None:
    marfast.warmup(pipeline, batch=3)
    module, seen = pipeline.model.module.get_submodule(part), []

    def doubled(module: Any, given: Any, result: Tensor) -> Tensor:
        seen.append(1)
        return 2 * result

    hook = module.register_forward_hook(doubled)
    images = pipeline.generate(LABELS, seed=1)
    assert seen
    assert "hooked" in marfast.warmup(pipeline, batch=3).no_graphs
    hook.remove()
    assert replays() == 0
    assert torch.equal(pipeline.generate(LABELS, seed=1), plain(seed=1))
    assert replays() == 10
    assert not torch.equal(images, plain(seed=1))


@by_one_backend
def test_a_module_that_was_changed_since_runs_the_plain_loop(
    pipeline: Pipeline, replays: Callable[[], int]
) -> None:
    marfast.warmup(pipeline, batch=3)
    other = tiny_pipeline()
    for model in (pipeline, other):
        model.model.module.decoder_norm.eps = 0.1
    assert torch.equal(pipeline.generate(LABELS, seed=1), other.generate(LABELS, seed=1))
    assert replays() == 0


@by_one_backend
def test_a_model_that_has_moved_leaves_its_graphs_behind(
    pipeline: Pipeline, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would replay on the other device."""
    monkeypatch.setattr(recorder, "device", torch.device("cuda", 1))
    for seed in range(3):
        assert torch.equal(pipeline.generate(LABELS, seed=seed), plain(seed=seed))
    assert not recorder.made
    assert pipeline.model.graphs is None


class Launching(Recorder):
    """Of which graphs keep nothing: as on a GPU, addresses are all that they have."""

    def graph(self, generators: Any, pool: Any) -> Any:
        self.made.append(RecordedGraph())
        capture = SimpleNamespace(capture=lambda function: function(), replay=lambda: None)
        return capture


def test_weights_that_were_replaced_are_not_kept() -> None:
    """`limit` counts none."""
    tiny = tiny_pipeline()
    with marfast.backend("torch"):
        pipeline = Pipeline(FastMAR(tiny.model.module, torch.bfloat16), tiny.settings)
        pipeline.model.graphs = graphs = Graphs(Launching())
        for batch in (1, 3):
            marfast.warmup(pipeline, batch=batch)
        (cast,) = {key.weights for key in graphs.kept}
        kept = [weakref.ref(weight) for weight in pipeline.model.renewed().weights]
        with torch.no_grad():
            for weight in pipeline.model.module.parameters():
                weight.mul_(1.5)
        pipeline.generate([1], seed=0)
        gc.collect()
        assert not any(weight() is not None for weight in kept)
        assert [key.weights for key in graphs.kept] == []
        marfast.warmup(pipeline, batch=3)
    (after,) = graphs.kept
    assert after.weights != cast


@by_one_backend
def test_weights_that_take_turns_are_not_captured_each_time(
    pipeline: Pipeline, recorder: Recorder
) -> None:
    module = pipeline.model.module
    states = [module.state_dict(), {k: v.clone() for k, v in module.state_dict().items()}]
    for seed in range(8):
        module.load_state_dict(states[seed % 2], assign=True)
        pipeline.generate(LABELS, seed=seed)
    assert not recorder.made
    pipeline.generate(LABELS, seed=8)
    assert len(recorder.made) == GRAPHS


def test_what_no_version_counts_is_taken_by_refresh(pipeline: Pipeline) -> None:
    marfast.warmup(pipeline, batch=3)
    other = tiny_pipeline()
    for model in (pipeline, other):
        model.model.module.decoder_embed.weight.data.mul_(1.5)
    marfast.refresh(pipeline)
    assert pipeline.model.graphs is None
    assert torch.equal(pipeline.generate(LABELS, seed=1), other.generate(LABELS, seed=1))


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
