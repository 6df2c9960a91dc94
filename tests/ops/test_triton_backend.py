"""Whether the Triton backend can run, and why not; it runs on request, and is loaded by then."""

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
import torch

from marfast import ops
from marfast.ops.op import OPS


def verdict(name: str, *args: Any) -> tuple[bool, str]:
    op = OPS[name]
    return op.backends["triton"].can_run(*op.fill(args))


@pytest.fixture
def interpreting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had begun so; nothing is run."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton_backend, "_installed", lambda: (True, ""))


def example(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    return OPS[name].example_args(dtype)


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_has_the_backend_and_takes_it_on_request_only(name, interpreting):
    assert verdict(name, *example(name)) == (True, "")
    assert verdict(name, *example(name, torch.float16)) == (True, "")
    assert ops.which(name, *example(name)) != "triton"
    with ops.backend("triton"):
        assert ops.which(name, *example(name)) == "triton"


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_cpus_tensors_are_refused(name, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    ok, reason = verdict(name, *example(name))
    assert not ok
    assert reason.endswith(" is on cpu")


X = torch.ones(2, 8)
WIDE = torch.ones(1, 16385)
HALF_OPEN = torch.ones(1, 2, 4, 4)[:, :, :, :3]
REFUSED = [
    ("layer_norm_modulate", (WIDE, WIDE, WIDE), "rows are 16385 wide; the kernel holds 16384"),
    ("layer_norm_modulate", (X.double(),) * 3, "x is float64; the kernel takes float32 or"),
    ("layer_norm_modulate", (X.bfloat16(),) * 3, "x is bfloat16, which the interpreter cuts off"),
    ("attention", (torch.ones(1, 2, 3, 1, 129),), "qkv has heads of 129; the kernel takes 128"),
    ("group_norm_silu", (HALF_OPEN, X[0], X[0], 2), "x's positions don't lie at one stride"),
    ("ddpm_step", (X.double(), torch.ones(2, 16)), "x is float64; the kernel takes float32"),
]


@pytest.mark.parametrize(("name", "args", "reason"), REFUSED, ids=[r[2][:30] for r in REFUSED])
def test_limits_are_reasons(name, args, reason, interpreting):
    ok, actual = verdict(name, *args)
    assert not ok
    assert actual.startswith(reason)


def test_without_triton_the_reason_says_so(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(triton_backend, "_installed", triton_backend._installed.__wrapped__)
    assert verdict("layer_norm_modulate", X, X, X) == (False, "triton isn't installed")
    with (
        ops.backend("triton"),
        pytest.raises(ops.BackendUnavailable, match="can't run layer_norm_modulate: triton isn't"),
    ):
        ops.layer_norm_modulate(X, X, X)


def test_neither_importing_nor_asking_loads_triton():
    code = (
        "import sys, torch\n"
        "before = 'triton' in sys.modules\n"
        "import marfast\n"
        "from marfast import ops\n"
        "ops.backends()\n"
        "x = torch.ones(2, 8)\n"
        "ops.layer_norm_modulate(x, x, x)\n"
        "assert 'marfast.triton' not in sys.modules\n"
        "assert before or 'triton' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
