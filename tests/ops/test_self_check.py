"""The known-answer check of GPU kernels, with backends made up in their place."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast.ops import BackendUnavailable, choice, self_check
from marfast.ops.op import OPS, Args, Backend, Op


@pytest.fixture(autouse=True)
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "is_wanted", lambda device: True)
    monkeypatch.setattr(self_check, "_answers", {})


@pytest.fixture
def op() -> Op:
    return OPS["layer_norm_modulate"]


@pytest.fixture
def install(op: Op, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Puts a backend "cuda" in the op's table; tells which arguments it was run with."""

    def put(change: Callable[[Tensor], Tensor], op: Op = op, **options: Any) -> list[Any]:
        runs: list[Any] = []

        def run(a: Args) -> Tensor:
            runs.append(a)
            return change(op.plain(*a))

        made = Backend("cuda", lambda a: (True, ""), run, **options)
        monkeypatch.setitem(op.backends, "cuda", made)
        return runs

    return put


def call(op: Op, dtype: torch.dtype = torch.float32, rows: int = 8) -> Tensor:
    x = torch.randn(3, rows, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return op(*x.unbind())


def test_a_right_kernel_is_checked_once_for_each_dtype_and_class_of_shapes(
    op: Op, install: Any
) -> None:
    runs = install(lambda result: result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(op)
        call(op)
        call(op, rows=6)
        assert len(runs) == 4, "its known answer, then three calls"
        call(op, torch.bfloat16)
        assert len(runs) == 6
        call(op, rows=9)
        assert len(runs) == 8


def test_the_known_answer_is_the_call_itself_with_few_steps(install: Any) -> None:
    sampler = OPS["ddpm_sample"]
    runs = install(lambda result: result, op=sampler)
    a = sampler.example_args()
    sampler(*a)
    known, real = runs
    assert (len(known.timesteps), len(real.timesteps)) == (5, 5)
    long = a._replace(
        step_noise=a.step_noise.repeat(20, 1, 1),
        schedule=a.schedule.repeat(20, 1),
        timesteps=a.timesteps.repeat(20),
    )
    sampler(*long)
    known, real = runs[2:]
    assert (len(known.timesteps), len(real.timesteps)) == (4, 100)
    assert known.noise is real.noise or torch.equal(known.noise, real.noise)
    assert all(map(torch.equal, known.weights, real.weights))


@pytest.mark.parametrize(
    "change", [lambda y: y * 1.01, lambda y: y + torch.nan, lambda y: y.roll(1, 0)]
)
def test_a_wrong_kernel_is_named_once_and_passed_over(op: Op, install: Any, change: Any) -> None:
    runs = install(change)
    with pytest.warns(RuntimeWarning, match="'cuda' of layer_norm_modulate in float32") as caught:
        first = call(op)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(call(op), first)
    assert len(runs) == 1, "its known answer alone"


def test_a_wrong_kernel_that_is_asked_for_is_an_error(op: Op, install: Any) -> None:
    install(lambda y: y * 1.01, on_request=True)
    with (
        choice.backend("cuda"),
        pytest.warns(RuntimeWarning),
        pytest.raises(BackendUnavailable, match="is off by"),
    ):
        call(op)


@pytest.mark.parametrize("forced", ["auto", "cuda"])
def test_what_raises_is_never_trusted_afterwards(op: Op, install: Any, forced: str) -> None:
    def trap(_: Tensor) -> Tensor:
        raise RuntimeError("invalid argument")

    def outcome() -> str:
        try:
            call(op)
        except BackendUnavailable as error:
            return str(error)
        return "another ran"

    runs = install(trap)
    said = "invalid argument" if forced == "cuda" else "another ran"
    with choice.backend(forced):
        with pytest.warns(RuntimeWarning, match=r"'cuda' of layer_norm.*invalid argument"):
            assert said in outcome()
        assert said in outcome()
    assert len(runs) == 1


def test_where_libraries_round_products_to_tf32_the_reference_does_too(
    op: Op, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right kernel is as far off then, and what is found holds for that alone."""
    runs = install(lambda y: y * 1.01)
    with monkeypatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("error")
        patched.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision="tf32"))
        call(op)
    assert len(runs) == 2
    with pytest.warns(RuntimeWarning, match="in float32 on cpu is off by"):
        call(op)
    assert len(runs) == 3


def test_an_interrupted_check_has_said_nothing(op: Op, install: Any) -> None:
    interrupted: list[int] = []

    def interrupt(result: Tensor) -> Tensor:
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        return result + torch.nan

    install(interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(op)
    with pytest.warns(RuntimeWarning, match="off by nan"):
        call(op)


def test_a_lost_device_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: torch.device) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    what, cause = "backend 'cuda' of attention", RuntimeError("unspecified launch failure")
    with pytest.raises(self_check.DeviceLost, match=r"'cuda' of attention.*MARFAST_BACKEND"):
        self_check.check_device(torch.device("cuda", 0), what, cause)
    self_check.check_device(torch.device("cpu"), what, cause)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    self_check.check_device(torch.device("cuda", 0), what, cause)


def test_where_the_reference_overflows_a_kernel_may_have_a_number(op: Op) -> None:
    expected = torch.tensor([1.0, torch.inf, torch.nan])
    assert self_check._distance(torch.tensor([1.5, 65504.0, 0.0]), expected) == (0.5, 1.0)
    off, _ = self_check._distance(torch.tensor([torch.nan, 0.0, 0.0]), expected)
    assert off != off


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    device = torch.device("cuda")
    assert self_check.is_wanted(device)
    assert not self_check.is_wanted(torch.device("cpu"))
    monkeypatch.setenv("MARFAST_SELF_CHECK", "0")
    assert not self_check.is_wanted(device)


def test_nothing_is_checked_under_capture_and_what_is_known_holds(
    op: Op, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = install(lambda y: y * 1.01)
    with monkeypatch.context() as patched:
        patched.setattr(self_check, "is_capturing", lambda: True)
        call(op)
        assert len(runs) == 1, "the call"
    with pytest.warns(RuntimeWarning):
        call(op)
    with monkeypatch.context() as patched:
        patched.setattr(self_check, "is_capturing", lambda: True)
        call(op)
    assert len(runs) == 2, "its known answer"
