"""The choice of a backend, forcing one, gradients in general, and life without the extension."""

import dataclasses
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops import op as op_module
from marfast.ops.choice import ORDER, BackendUnavailable
from marfast.ops.op import OPS, Args, Backend, Op
from marfast.ops.runtime import cpu
from tests.ops.heads import sample_inputs

OTHERS = [name for name in ORDER if name != "reference"]


def probed(x: Tensor, y: float = 2.0) -> Tensor:
    """An op of the tests, x² y."""


PROBE = Op(probed)
del OPS["probed"]


@PROBE.check
def _check(a: Args) -> None:
    if a.y < 0:
        raise ValueError(f"y is {a.y}; it must not be negative")


@PROBE.fake
def _fake(a: Args) -> Tensor:
    return torch.empty_like(a.x)


@PROBE.reference
def _reference(a: Args) -> Tensor:
    return a.x * a.x * a.y


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An op with every backend, each of which can be made unable; results tell who ran."""
    op = PROBE
    reasons: dict[str, str] = {}
    monkeypatch.setattr(op, "backends", dict(op.backends))
    for number, name in enumerate(OTHERS):
        op.backends[name] = Backend(
            name,
            lambda a, name=name: (name not in reasons, reasons.get(name, "")),
            lambda a, number=number: torch.full_like(a.x, number),
        )
    return op, reasons


def who(op: Op) -> str:
    number = int(op(torch.full((1,), 10.0)).item())
    return "reference" if number == 200 else OTHERS[number]


def test_the_order_is_that_of_the_table(probe):
    op, reasons = probe
    for name in OTHERS:
        assert who(op) == name
        reasons[name] = "not today"
    with pytest.raises(BackendUnavailable, match="'auto' can't run probed: not today"):
        who(op)  # the reference runs on request alone
    with ops.backend("reference"):
        assert who(op) == "reference"


@pytest.mark.parametrize("name", ORDER)
def test_a_forced_backend_runs(probe, name):
    op, _ = probe
    with ops.backend(name):
        assert who(op) == name
    assert who(op) == ORDER[0]


def test_a_backend_on_request_runs_when_forced_and_not_otherwise(probe):
    op, _ = probe
    op.backends["cuda"] = dataclasses.replace(op.backends["cuda"], on_request=True)
    assert who(op) == "triton"
    with ops.backend("cuda"):
        assert who(op) == "cuda"


def test_a_forced_backend_that_cannot_run_says_why(probe):
    op, reasons = probe
    reasons["triton"] = "x is too heavy"
    with (
        ops.backend("triton"),
        pytest.raises(BackendUnavailable, match="'triton' can't run probed: x is too heavy"),
    ):
        who(op)


def test_an_op_without_the_forced_backend_runs_by_torch(probe):
    op, _ = probe
    del op.backends["cuda"]
    with ops.backend("cuda"):
        assert who(op) == "torch"


def test_torch_is_the_references_formula_where_it_has_no_file():
    x = torch.full((2,), 3.0)
    assert set(PROBE.backends) == {"torch", "reference"}
    with ops.backend("torch"):
        assert PROBE(x).tolist() == [18.0, 18.0]


def test_an_unknown_backend_lists_the_known_ones():
    with (
        pytest.raises(ValueError, match=f"'gpu'; known are auto, {', '.join(ORDER)}"),
        ops.backend("gpu"),
    ):
        pass


def test_backends_nest_and_are_restored_after_an_error(probe):
    op, _ = probe
    with ops.backend("cpu"):
        with ops.backend("auto"):
            assert who(op) == ORDER[0]
        with pytest.raises(KeyError), ops.backend("triton"):
            raise KeyError
        assert who(op) == "cpu"


def test_a_forced_backend_is_the_threads_own(probe):
    op, _ = probe
    seen = []
    with ops.backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(who(op)))
        thread.start()
        thread.join()
    assert seen == [ORDER[0]]


def test_an_exception_in_a_backend_is_never_a_reason_to_fall_back(probe):
    op, _ = probe

    def broken(a: Args) -> Tensor:
        raise RuntimeError("out of luck")

    op.backends["cuda"] = Backend("cuda", lambda a: (True, ""), broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        who(op)


def test_checks_run_before_any_backend(probe):
    op, _ = probe
    for call in (op, torch.ops.marfast.probed):
        with pytest.raises(ValueError, match=r"y is -1\.0; it must not"):
            call(torch.ones(1), -1.0)
    with pytest.raises(ValueError, match=r"y is -1\.0"):
        op(torch.ones(1, device="meta"), -1.0)


def test_gradients_are_recorded_where_torch_is_old(monkeypatch):
    """As with torch 2.6, which can't be asked at once."""
    monkeypatch.setattr(op_module, "any_requires_grad", op_module._looked_through)
    x, weights = torch.randn(3, 16), sample_inputs()[3]
    assert not ops.layer_norm_modulate(x, x, x).requires_grad
    assert ops.layer_norm_modulate(x, x, x.clone().requires_grad_()).requires_grad
    args = (x, torch.arange(3), torch.randn(3, 24))
    assert not ops.denoise(*args, weights).requires_grad
    assert ops.denoise(*args, [*weights[:-1], weights[-1].clone().requires_grad_()]).requires_grad


def test_a_tensor_passed_twice_gets_both_gradients():
    x = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    (actual,) = torch.autograd.grad(ops.layer_norm_modulate(x, x, x).sum(), x)
    with ops.backend("reference"):
        y = ops.layer_norm_modulate.plain(x, x, x)
    (expected,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(actual, expected)


def test_only_wanted_gradients_are_computed():
    x = torch.full((2,), 3.0, requires_grad=True)
    y = PROBE(x, 5.0)
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert gradient.tolist() == [30.0, 30.0]
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert second.tolist() == [10.0, 10.0]
    assert not PROBE(x.detach()).requires_grad


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_ops_example_is_valid_on_every_dtype(name):
    op = OPS[name]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        args = op.example_args(dtype)
        result = op(*args)
        assert result.isfinite().all()
        assert torch.equal(op(*args), result)


def test_the_table_has_every_op_and_reason(monkeypatch):
    def table() -> dict[tuple[str, str], tuple[bool, str]]:
        return {(row.op, row.backend): (row.can_run, row.reason) for row in ops.backends()}

    assert {op for op, _ in table()} == set(OPS)
    assert table()["ddpm_step", "reference"] == (True, "")
    monkeypatch.setattr(cpu, "_load", lambda: (None, "it was left at home"))
    assert table()["ddpm_step", "cpu"] == (False, "it was left at home")
    on_meta = {(r.op, r.backend): r.reason for r in ops.backends("meta")}
    assert on_meta["layer_norm_modulate", "cpu"] == "x is on meta"


def test_which_fills_in_defaults(probe):
    op, reasons = probe
    OPS["probed"] = op
    try:
        assert ops.which("probed", torch.ones(1)) == "cuda"
        reasons.update(dict.fromkeys(("cuda", "triton", "cpu"), "no"))
        assert ops.which("probed", torch.ones(1)) == "torch"
    finally:
        del OPS["probed"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


CALL = """
import torch
from marfast import ops
x = torch.ones(2, 16)
print(ops.which("layer_norm_modulate", x, x, x))
"""


def test_the_environment_forces_a_backend():
    assert run(CALL, MARFAST_BACKEND="reference").stdout == "reference\n"
    assert "BackendUnavailable: backend 'triton'" in run(CALL, MARFAST_BACKEND="triton").stderr
    unknown = run(CALL, MARFAST_BACKEND="gpu").stderr
    assert f"ArgumentError: backend: 'gpu'; known are auto, {', '.join(ORDER)}" in unknown


WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["marfast._cpu"] = None  # as if it had not been built
import torch
from marfast import ops
x = torch.randn(2, 16)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        y = ops.layer_norm_modulate(x, x, x)
        ops.ddpm_step(x, torch.ones(2, 32), x, torch.ones(8), torch.ones(1))
with ops.backend("reference"):
    assert torch.equal(y, ops.layer_norm_modulate(x, x, x))
print([str(w.message) for w in caught])
try:
    with ops.backend("cpu"):
        ops.layer_norm_modulate(x, x, x)
except ops.BackendUnavailable as error:
    print(error)
"""


def test_without_the_extension_everything_runs_and_one_warning_says_so():
    result = run(WITHOUT_EXTENSION)
    assert result.returncode == 0, result.stderr
    warning, forced = result.stdout.splitlines()
    reason = "the native extension (marfast._cpu) isn't built"
    assert warning == str([f"marfast runs in plain PyTorch: {reason}"])
    assert forced == f"backend 'cpu' can't run layer_norm_modulate: {reason}"
