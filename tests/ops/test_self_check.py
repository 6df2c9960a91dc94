"""The known-answer check of GPU kernels, with backends made up in their place."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast.ops import BackendUnavailable, choice, self_check
from marfast.ops.op import OPS, Args, Backend, Op


@pytest.fixture(autouse=True)
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "is_checked", lambda device: True)
    monkeypatch.setattr(self_check, "_verdicts", {})


@pytest.fixture
def op() -> Op:
    return OPS["layer_norm_modulate"]


@pytest.fixture
def install(op: Op, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Puts a backend "cuda" in the op's table; tells which arguments it was run with."""

    def put(change: Callable[[Tensor], Tensor], **options: Any) -> list[Any]:
        runs: list[Any] = []

        def run(a: Args) -> Tensor:
            runs.append(a)
            return change(op.plain(*a))

        made = Backend("cuda", lambda a: (True, ""), run, **options)
        monkeypatch.setitem(op.backends, "cuda", made)
        return runs

    return put


def call(op: Op, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return op(*x.unbind())


def test_a_right_kernel_is_checked_once_for_each_dtype(op: Op, install: Any) -> None:
    runs = install(lambda result: result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(op)
        call(op)
        assert len(runs) == 3, "its example, then two calls"
        call(op, torch.bfloat16)
        assert len(runs) == 5


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
    assert len(runs) == 1, "its example alone"


def test_a_wrong_kernel_that_is_asked_for_is_an_error(op: Op, install: Any) -> None:
    install(lambda y: y * 1.01, on_request=True)
    with (
        choice.backend("cuda"),
        pytest.warns(RuntimeWarning),
        pytest.raises(BackendUnavailable, match="is off by"),
    ):
        call(op)


def test_a_trap_names_the_backend(op: Op, install: Any) -> None:
    def trap(_: Tensor) -> Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    install(trap)
    with pytest.raises(RuntimeError, match=r"'cuda' of layer_norm_modulate.*MARFAST_BACKEND"):
        call(op)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    device = torch.device("cuda")
    assert self_check.is_checked(device)
    assert not self_check.is_checked(torch.device("cpu"))
    monkeypatch.setenv("MARFAST_SELF_CHECK", "0")
    assert not self_check.is_checked(device)


def test_nothing_is_checked_under_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not self_check.is_checked(torch.device("cuda"))
