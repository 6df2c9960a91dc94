"""When the Triton backend can't run it says why, and is not loaded for that."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from marfast import ops
from marfast.ops.op import OPS
from marfast.ops.runtime import triton


@pytest.mark.parametrize("name", sorted(name for name in OPS if "triton" in OPS[name].backends))
def test_a_cpus_tensors_are_refused(name, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    op = OPS[name]
    ok, reason = op.backends["triton"].can_run(op.example_args())
    assert not ok
    assert reason.endswith(" is on cpu")


@pytest.mark.parametrize("name", sorted(name for name in OPS if "triton" in OPS[name].backends))
def test_launches_go_to_the_arguments_device(name, monkeypatch):
    """Triton launches on the current one, whichever that is."""
    pytest.importorskip("triton")
    second, entered, seen = torch.device("cuda", 1), [], []

    class Device:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            entered.append(self.device)

        def __exit__(self, *_):
            entered.pop()

    monkeypatch.setattr(torch.cuda, "device", Device)
    file = importlib.import_module(f"marfast.ops.{name}.triton")
    monkeypatch.setattr(file, "run", lambda a: seen.extend(entered))
    a = OPS[name].example_args()
    OPS[name].backends["triton"].run(a._replace(**{a._fields[0]: SimpleNamespace(device=second)}))
    assert (seen, entered) == ([second], [])


def test_without_triton_the_reason_says_so(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(triton, "is_built", triton.is_built.__wrapped__)
    x = torch.ones(2, 8)
    with (
        ops.backend("triton"),
        pytest.raises(ops.BackendUnavailable, match="can't run layer_norm_modulate: triton isn't"),
    ):
        ops.layer_norm_modulate(x, x, x)


def test_neither_importing_nor_asking_loads_triton():
    code = (
        "import sys, torch\n"
        "before = 'triton' in sys.modules\n"
        "import marfast\n"
        "from marfast import ops\n"
        "ops.backends()\n"
        "x = torch.ones(2, 8)\n"
        "ops.layer_norm_modulate(x, x, x)\n"
        "assert 'marfast.ops.layer_norm_modulate.triton' not in sys.modules\n"
        "assert before or 'triton' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
