from pathlib import Path

import pytest

from marfast.ops.op import OPS, Op
from tests.ops.simulated import Device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    return Device(monkeypatch, tmp_path)


@pytest.fixture
def op() -> Op:
    return OPS["layer_norm_modulate"]
