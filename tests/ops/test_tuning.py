"""The choice by measurement, on a simulated device with slow, wrong and crashing backends on it."""

import dataclasses
import itertools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import marfast
from marfast.ops import choice, self_check, tuning
from marfast.ops.op import OPS, Op, which
from marfast.ops.runtime import capture
from marfast.ops.trials import Trial
from tests.ops.simulated import CPU, Device, Planted, chosen


def trap(_: Tensor) -> Tensor:
    raise RuntimeError("an illegal instruction was encountered")


def off(y: Tensor) -> Tensor:
    return y * 1.01


@pytest.mark.parametrize("times", [*itertools.permutations([1e-3, 2e-3, 3e-3])])
def test_the_fastest_runs(device: Device, op: Op, times: tuple[float, ...]) -> None:
    names = ("cuda", "triton", "torch")
    planted = device.plant(op, **dict(zip(names, times, strict=True)))
    fastest = names[times.index(1e-3)]
    assert chosen(op) == fastest
    ran = {name: len(made.runs) for name, made in planted.items()}
    op(*op.example_args())
    ran[fastest] += 1
    assert ran == {name: len(made.runs) for name, made in planted.items()}, "measured once"


@pytest.mark.parametrize("change", [off, trap, lambda y: y + torch.nan, lambda y: y.roll(1, 0)])
def test_the_fastest_is_passed_over_where_it_is_wrong(
    device: Device, op: Op, change: Callable[[Tensor], Tensor]
) -> None:
    wrong = {"seconds": 1e-4, "change": change}
    planted = device.plant(op, cuda=wrong, triton=2e-3, torch=3e-3)
    with pytest.warns(RuntimeWarning, match="'cuda' of layer_norm_modulate in float32") as caught:
        assert chosen(op) == "triton"
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen(op) == "triton"
    assert len(planted["cuda"].runs) == 1, "it is not trusted, nor tried again"
    device.start()
    planted = device.plant(op, cuda=wrong, triton=2e-3, torch=3e-3)
    assert chosen(op) == "triton"
    assert not planted["cuda"].runs, "nor by the next process"


@pytest.mark.parametrize("run", [2, 3, 4])
def test_one_that_is_right_and_then_fails_is_passed_over(device: Device, op: Op, run: int) -> None:
    planted: dict[str, Planted] = {}

    def then(y: Tensor) -> Tensor:
        return trap(y) if len(planted["cuda"].runs) == run else y

    planted |= device.plant(op, cuda={"seconds": 1e-4, "change": then}, torch=1e-3)
    with pytest.warns(RuntimeWarning, match="'cuda' of .* failed while it was timed: an illegal"):
        assert chosen(op) == "torch"
    assert (chosen(op), len(planted["cuda"].runs)) == ("torch", run)
    device.start()
    planted |= device.plant(op, cuda=1e-4, torch=1e-3)
    assert (chosen(op), len(planted["cuda"].runs)) == ("torch", 0), "nor by the next process"


def test_where_all_are_wrong_the_usual_one_runs(device: Device, op: Op) -> None:
    wrong = {"seconds": 1e-3, "change": off}
    device.plant(op, cuda=wrong, triton={"seconds": 1e-4, "change": trap}, torch=wrong)
    with pytest.warns(RuntimeWarning) as caught:
        assert chosen(op) == "torch"
    assert len(caught) == 3


def test_a_lost_device_ends_the_process_and_the_next_one_knows(device: Device, op: Op) -> None:
    backends = {"cuda": {"seconds": 1e-4, "change": trap}, "torch": 1e-3}
    device.plant(op, **backends)

    def lose(*_: Any) -> None:
        raise self_check.DeviceLost("cuda is lost; MARFAST_BACKEND=torch")

    with device.monkeypatch.context() as patched:
        patched.setattr(self_check, "check_device", lose)
        with pytest.raises(self_check.DeviceLost, match="MARFAST_BACKEND"):
            chosen(op)
    device.start()
    planted = device.plant(op, **backends)
    assert chosen(op) == "torch"
    assert not planted["cuda"].runs


def test_checks_and_measurements_hold_the_lock_of_captures(device: Device, op: Op) -> None:
    """Those run inside a capture's preparation, and captures inside them: two locks would wait for
    each other."""
    free: list[bool] = []

    def look(y: Tensor) -> Tensor:
        def take() -> None:
            free.append(capture.LOCK.acquire(blocking=False))

        other = threading.Thread(target=take)
        other.start()
        other.join()
        return y

    device.plant(op, cuda={"seconds": 1e-3, "change": look}, torch=2e-3)
    backend = op.backends["cuda"]
    assert not self_check.verdict(op, backend, op.example_args())
    assert free == [False]
    assert chosen(op) == "cuda"
    assert len(free) > 1
    assert not any(free)


@pytest.mark.parametrize("run", [1, 2, 3])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("full"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=str,
)
def test_lack_of_memory_says_nothing_about_a_candidate(
    device: Device, op: Op, error: Exception, run: int
) -> None:
    planted: dict[str, Planted] = {}

    def full(y: Tensor) -> Tensor:
        if len(planted["cuda"].runs) == run:
            raise error
        return y

    planted |= device.plant(op, cuda={"seconds": 1e-4, "change": full}, torch=1e-3)
    assert chosen(op) == "torch"
    device.start()
    device.plant(op, cuda=1e-4, torch=1e-3)
    assert chosen(op) == "cuda"


def test_variants_of_a_backend_are_candidates(device: Device) -> None:
    op = OPS["ddpm_sample"]
    variants = {"tall": 2e-3, "persistent": 1e-3}
    planted = device.plant(op, cuda={"seconds": 0.0, "variants": variants}, torch=3e-3)
    a = op.example_args()
    assert chosen(op, a) == "cuda:persistent"
    op(*a)
    assert planted["cuda"].variants[-1] == "persistent"
    assert which("ddpm_sample", *a) == "cuda"


def test_dtypes_and_shapes_are_measured_each(device: Device, op: Op) -> None:
    planted = device.plant(op, cuda=1e-3, torch=2e-3)

    def measured(rows: int, dtype: torch.dtype = torch.float32) -> bool:
        before = len(planted["torch"].runs)
        x = torch.randn(3, rows, 64).to(dtype)
        op(*x.unbind())
        return len(planted["torch"].runs) > before

    assert [measured(rows) for rows in (100, 128, 65, 64, 129)] == [True, False, False, True, True]
    assert measured(100, torch.bfloat16)


def test_trials_end_with_the_budget(device: Device) -> None:
    """Each call of "triton" takes a tenth of it, and there is no end of classes."""
    op = OPS["layer_norm_modulate"]
    device.plant(op, cuda=0.1, triton=1.0, torch=0.2)
    for width in range(8, 200, 8):
        op(*torch.randn(3, 8, width).unbind())
    one_trial = 4 * 1.0  # an answer, a first run, two that are timed
    calls = 24 * 0.2
    assert device.tuner.budget.left <= 0
    assert device.clock.time <= tuning.BUDGET + one_trial + calls


def test_a_hopeless_candidate_costs_its_first_steps_alone(device: Device) -> None:
    op = OPS["ddpm_sample"]
    planted = device.plant(op, torch=1e-3, cuda={"seconds": 0.5})
    a = op.example_args()
    assert len(a.timesteps) == 5
    assert chosen(op, a) == "torch"
    steps = [len(run.timesteps) for run in planted["cuda"].runs]
    assert steps == [len(op.shortened(a).timesteps)] * 2
    assert choice.tried(op, a)["cuda"].at_least


def test_what_was_not_tried_is_tried_by_the_next_process(device: Device, op: Op) -> None:
    backends = {"torch": 0.2, "triton": 0.1, "cuda": 0.01}
    device.start(budget=0.5)  # too little to time even the usual one
    device.plant(op, **backends)
    assert chosen(op) == "torch"
    device.start(budget=0.9)
    device.plant(op, **backends)
    assert chosen(op) == "cuda"
    device.start()
    planted = device.plant(op, **backends)
    assert chosen(op) == "cuda"
    assert [len(planted[name].runs) > 1 for name in backends] == [False, True, False]


def test_a_call_of_another_precision_decides_nothing(device: Device, op: Op) -> None:
    """No kernel takes float64: nothing is measured."""
    device.plant(op, cuda=1e-3, torch=2e-3)
    able = dataclasses.replace(
        op.backends["cuda"], can_run=lambda a: (a.x.dtype == torch.float32, "of float32 alone")
    )
    device.monkeypatch.setitem(op.backends, "cuda", able)
    x = torch.randn(3, 8, 64)
    assert chosen(op, op.bind(*x.double().unbind())) == "torch"
    assert chosen(op, op.bind(*x.unbind())) == "cuda"


def test_nothing_is_tried_under_capture(device: Device, op: Op) -> None:
    planted = device.plant(op, cuda=1e-3, torch=2e-3)
    with device.monkeypatch.context() as patched:
        for place in (self_check, tuning):
            patched.setattr(place, "is_capturing", lambda: True)
        assert chosen(op) == "torch"
        assert not planted["cuda"].runs
    assert chosen(op) == "cuda"
    with device.monkeypatch.context() as patched:
        for place in (self_check, tuning):
            patched.setattr(place, "is_capturing", lambda: True)
        assert chosen(op) == "cuda", "what is known holds"


def test_a_forced_backend_is_not_measured(device: Device, op: Op) -> None:
    planted = device.plant(op, cuda=1e-3, torch=2e-3)
    with marfast.backend("torch"):
        assert chosen(op) == "torch"
    assert not planted["cuda"].runs


def test_it_is_for_gpus_and_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    assert tuning.is_on(gpu)
    assert not tuning.is_on(CPU)
    with monkeypatch.context() as patched:  # to set it would import the compiler
        patched.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        assert not tuning.is_on(gpu)
    monkeypatch.setenv("MARFAST_TUNE", "0")
    assert not tuning.is_on(gpu)
    assert tuning.tuner_of(gpu) is None


def test_what_was_tried_can_be_read(device: Device, op: Op) -> None:
    a = op.example_args()
    assert choice.tried(op, a) == {}
    device.plant(op, cuda={"seconds": 1e-3, "change": off}, triton=2e-3, torch=3e-3)
    with pytest.warns(RuntimeWarning):
        chosen(op, a)
    found = choice.tried(op, a)
    assert [*found] == ["torch", "cuda", "triton"]
    assert found["cuda"].wrong
    assert found["cuda"].error == pytest.approx(0.01, rel=0.1)
    assert found["triton"] == Trial(0.0, pytest.approx(2e-3))
