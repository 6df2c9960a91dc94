"""Graphs within their memory; captures that fail are told once."""

import warnings
from typing import Any

import pytest
import torch

import marfast
from marfast.generation import Pipeline
from marfast.generation.graphs import Graphs
from tests.generation.graphs.cases import GRAPHS, LABELS, by_one_backend, plain
from tests.generation.recorder import Recorder
from tests.models import tiny_pipeline


@by_one_backend
def test_the_least_recently_used_are_dropped_when_memory_is_full(pipeline: Pipeline) -> None:
    pipeline.model.graphs.limit = 250  # two of 100
    for batch in (1, 2, 1, 3):
        marfast.warmup(pipeline, batch=batch)
    images = [key.kind[0] for key in pipeline.model.graphs.kept]
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
