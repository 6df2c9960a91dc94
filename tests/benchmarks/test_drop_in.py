"""The study of `accelerate` measures the accelerated code, or nothing."""

import pytest
import torch

import marfast
from benchmarks.studies import drop_in
from tests.models import tiny_pipeline


@pytest.fixture(autouse=True)
def a_label_of_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_in, "LABEL", torch.tensor([3]))


def test_the_reference_makes_the_bits_of_the_modules_own_code() -> None:
    row = drop_in.compare(tiny_pipeline().model.module, 2, 1, "reference")
    assert row["difference"] == 0
    assert row["ratio"] > 0


def test_a_module_beside_itself_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate = marfast.accelerate
    monkeypatch.setattr(marfast, "accelerate", lambda *of: marfast.restore(accelerate(*of)))
    with pytest.raises(SystemExit, match="own code ran in its place"):
        drop_in.compare(tiny_pipeline().model.module, 2, 0, "reference")
