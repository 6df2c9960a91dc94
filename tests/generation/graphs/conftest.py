"""A recorder in CUDA graphs' place, on a device with a generator of its own."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import marfast
from marfast.generation import Pipeline
from marfast.generation.graphs import Graphs
from marfast.generation.randomness import Generators
from marfast.model import FastMAR
from tests.generation.graphs.cases import GLOBAL
from tests.generation.recorder import Recorder
from tests.models import tiny_pipeline


@pytest.fixture(autouse=True)
def a_device_with_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where step noise comes from another generator than initial noise."""

    def seeded(seed: int, device: torch.device) -> Generators:
        cpu, other = torch.Generator(), torch.Generator()
        return Generators(
            np.random.RandomState(seed), cpu.manual_seed(seed), other.manual_seed(~seed % 2**32)
        )

    def global_ones(device: torch.device) -> Generators:
        return Generators(np.random, torch.default_generator, GLOBAL)

    monkeypatch.setattr(FastMAR, "shares_rows", False)  # a CPU's alone
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
