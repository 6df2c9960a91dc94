"""`generate` in processes that others have set up: other defaults of torch's, a forked child."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import marfast
from marfast.errors import ArgumentError
from marfast.ops import choice
from marfast.ops.op import OPS
from tests.models import tiny_pipeline

DEFAULTS = [torch.float64, torch.bfloat16, torch.float16, "meta"]


@pytest.fixture(params=DEFAULTS, ids=str)
def other_default(request: Any) -> Iterator[Any]:
    """Sets a default dtype or device; "meta" stands for what a machine may not have."""

    def put() -> None:
        if isinstance(request.param, torch.dtype):
            torch.set_default_dtype(request.param)
        else:
            torch.set_default_device(request.param)

    yield put
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("cfg_schedule", ["linear", "constant"])
@pytest.mark.parametrize("seed", [3, [3, 4]])
def test_torchs_defaults_change_no_image(other_default: Any, seed: Any, cfg_schedule: str) -> None:
    options = {"seed": seed, "cfg": 2.0, "cfg_schedule": cfg_schedule, "num_iter": 3}
    fresh, used = tiny_pipeline(), tiny_pipeline()
    expected = used.generate([1, None], **options)
    other_default()
    assert torch.equal(used.generate([1, None], **options), expected)
    assert torch.equal(fresh.generate([1, None], **options), expected)


def test_a_model_is_loaded_under_other_defaults(other_default: Any) -> None:
    options = {"seed": 0, "num_iter": 2, "steps": 3}
    expected = marfast.load("fashion-mnist").generate([1], **options)
    other_default()
    assert torch.equal(marfast.load("fashion-mnist").generate([1], **options), expected)


@pytest.mark.parametrize("name", sorted(OPS))
def test_torchs_defaults_change_no_op(name: str, other_default: Any) -> None:
    op = OPS[name]
    a = op.example_args()
    expected = [op(*a), op.plain(*a)]
    other_default()
    again = op.example_args()
    for ours, theirs in zip(tree_leaves(again), tree_leaves(a), strict=True):
        assert not isinstance(ours, Tensor) or torch.equal(ours, theirs)
    for result, before in zip([op(*again), op.plain(*again)], expected, strict=True):
        assert torch.equal(result, before)


FORK = """
import os, signal, torch, marfast
torch.set_num_threads(2)
model = marfast.load("fashion-mnist")
options = dict(seed=[1], num_iter=2, steps=3)
expected = model.generate([1], **options)
torch.randn(2000, 2000) @ torch.randn(2000, 2000)
if (child := os.fork()) == 0:
    signal.alarm(100)
    same = torch.equal(model.generate([1], **options), expected)
    os._exit(0 if same and torch.get_num_threads() == 1 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_generates() -> None:
    """Its torch has one thread: those of the parent are gone."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "2"], done.stderr


@pytest.mark.parametrize(
    "labels",
    [
        -5,
        1.7,
        True,
        "1",
        [1, -5],
        [1.7],
        [True],
        [[1]],
        torch.tensor(1.7),
        torch.tensor([1.0]),
        torch.tensor([True, False]),
        torch.tensor([-1]),
        torch.tensor([[1]]),
        np.array([1.7]),
        np.float32(1.7),
        10,
    ],
    ids=repr,
)
def test_what_is_no_label_is_an_error(labels: Any) -> None:
    with pytest.raises(ArgumentError, match=r"labels: .*allowed are 0 to 9, .*or None"):
        tiny_pipeline().generate(labels, num_iter=1)


def test_step_noise_is_drawn_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many steps it is more than all else; which number goes where doesn't depend on chunks."""
    pipeline = tiny_pipeline(steps=7)
    options = {"cfg": 2.0, "num_iter": 3}

    def run(seed: Any) -> Any:
        torch.manual_seed(9)
        np.random.seed(9)
        images = pipeline.generate([1, None, 2], seed=seed, **options)
        return images, torch.get_rng_state(), torch.tensor(np.random.rand())

    whole = [run(seed) for seed in (None, 3, [3, 4, 5])]
    steps: list[int] = []
    monkeypatch.setattr("marfast.generation.randomness.NOISE_MEMORY", 4 * 3 * 16 * 5 * 2)

    def watch(op: Any, a: Any, _: Any) -> None:
        if op.name == "ddpm_sample":
            steps.append(len(a.timesteps))

    with choice.watched(watch):
        chunked = [run(seed) for seed in (None, 3, [3, 4, 5])]
    assert set(steps) > {2, 1}
    assert sum(steps) == 3 * 3 * 7
    for ours, theirs in zip(chunked, whole, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_weight_without_its_memory_is_named() -> None:
    """As under FSDP between two uses: torch's own operators would read address 0."""
    for name, _ in tiny_pipeline().model.module.named_parameters():
        pipeline = tiny_pipeline()
        pipeline.model.module.get_parameter(name).untyped_storage().resize_(0)
        with pytest.raises(ArgumentError, match=f"^{name}: it has lost its memory"):
            pipeline.generate([1], num_iter=1)
