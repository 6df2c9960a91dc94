"""`marfast.warmup` and `marfast.refresh`, for loaded and for accelerated models."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marfast
from marfast.drop_in.install import installed
from marfast.generation.graphs import Graphs
from marfast.model import packing
from marfast.ops.runtime import cpu
from marfast.reference import MAR
from tests.generation.recorder import Recorder
from tests.models import TINY, tiny_pipeline, tiny_weights


@pytest.fixture
def module() -> MAR:
    built: MAR = TINY.build(steps="4", clip_denoised=True)
    built.load_state_dict(tiny_weights(), assign=True)
    return built


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many weights were packed so far."""
    counts: list[int] = []
    init = packing.Packing.__init__

    def counting(self: packing.Packing, pack: Any) -> None:
        def counted(weights: Any) -> Tensor:
            counts.append(1)
            made: Tensor = pack(weights)
            return made

        init(self, counted)

    monkeypatch.setattr(packing.Packing, "__init__", counting)
    return lambda: len(counts)


def test_a_loaded_model_packs_once_and_reports(packed: Callable[[], int]) -> None:
    pipeline = tiny_pipeline()
    report = marfast.warmup(pipeline, batch=2, cfg=2.0)
    assert report.seconds > 0
    ran = {"ddpm_sample": ["cpu" if cpu.is_built()[0] else "torch"]}
    assert ran.items() <= report.backends.items()
    assert (report.graphs, report.no_graphs) == (
        0,
        "the model is on cpu; graphs are for CUDA devices",
    )
    before = packed()
    pipeline.generate([1, 2], seed=0, cfg=2.0)
    assert packed() == before


def test_it_leaves_the_generators_alone() -> None:
    np.random.seed(3)
    torch.manual_seed(3)
    expected = tiny_pipeline().generate([1, 2])
    np.random.seed(3)
    torch.manual_seed(3)
    pipeline = tiny_pipeline()
    marfast.warmup(pipeline, batch=2)
    assert torch.equal(pipeline.generate([1, 2]), expected)


def test_an_accelerated_model(module: MAR, packed: Callable[[], int]) -> None:
    marfast.accelerate(module, backend="auto")
    marfast.warmup(module, batch=2, num_iter=4, cfg=torch.tensor([2.0]))
    before = packed()
    module.sample_tokens(2, num_iter=4, cfg=2.0)
    assert packed() == before


def test_the_backend_of_accelerate_holds(module: MAR) -> None:
    marfast.accelerate(module, backend="reference")
    report = marfast.warmup(module, num_iter=2)
    assert all(names == ["reference"] for names in report.backends.values())


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_a_wrong_batch_is_named(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"batch: .*; allowed are whole numbers from 1"):
        marfast.warmup(tiny_pipeline(), batch=batch)


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match="num_iter: 99"):
        marfast.warmup(tiny_pipeline(), num_iter=99)


def test_an_accelerated_models_settings_are_named_and_have_the_defaults_of_edit(
    module: MAR,
) -> None:
    marfast.accelerate(module, backend="reference")
    for setting, said in (({"sampler": "ddim"}, "sampler: 'ddim'"), ({"num_iter": 99}, "num_iter")):
        with pytest.raises(ValueError, match=said):
            marfast.warmup(module, **setting)
    recorder, method = Recorder(), installed(module)["sample_tokens"]
    method.kept.graphs = Graphs(recorder)  # type: ignore[attr-defined]
    made = marfast.warmup(module, unknown=9).graphs
    marfast.edit(module, torch.zeros(1, 16, 16), torch.arange(16)[None] < 9, 1)
    assert sum(graph.replays for graph in recorder.made) == 2 * 9
    assert len(recorder.made) == made


def test_other_models_are_refused(module: MAR) -> None:
    with pytest.raises(TypeError, match="model: MAR; allowed are what"):
        marfast.warmup(module)
    with pytest.raises(TypeError, match="MAR is not accelerated"):
        marfast.refresh(module)


def test_refresh_packs_anew(module: MAR, packed: Callable[[], int]) -> None:
    pipeline = tiny_pipeline()
    marfast.warmup(pipeline)
    before = packed()
    marfast.refresh(pipeline)
    expected = pipeline.generate(3, seed=1)
    assert packed() == 2 * before
    assert torch.equal(expected, tiny_pipeline().generate(3, seed=1))


def test_refresh_finds_what_a_checksum_misses(module: MAR) -> None:
    marfast.accelerate(module)

    def sample() -> Tensor:
        np.random.seed(0)
        torch.manual_seed(0)
        with torch.no_grad():
            return module.sample_tokens(1, num_iter=2, labels=torch.tensor([1]))

    first = sample()
    weight = module.diffloss.net.input_proj.weight.data
    step = max(1, weight.numel() // packing.SAMPLES)
    weight.flatten()[step - 1 :: step] += 0.5  # none of those that are read
    marfast.refresh(module)
    after = sample()
    assert (after - first).abs().max() > 1e-3
    marfast.restore(module)
    torch.testing.assert_close(after, sample(), rtol=0, atol=1e-4)
