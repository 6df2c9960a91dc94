"""No backend copies from the host in a step of the head or an iteration of the loop, or waits."""

import pytest
import torch

from benchmarks.studies import device_work
from benchmarks.studies.device_work import WHO, Recorder
from benchmarks.studies.sources import read


@pytest.mark.parametrize("who", WHO[1:])
def test_a_step_and_an_iteration_need_nothing_of_the_host(who: str) -> None:
    if who == "triton":
        pytest.importorskip("triton")
    for found in (
        *(device_work.of_a_step(who, dtype) for dtype in (torch.float32, torch.bfloat16)),
        device_work.of_an_iteration(who, steps=2),
    ):
        assert (found["copies"], found["waits"]) == (0, 0)


def test_copies_and_waits_are_seen() -> None:
    recorder, there = Recorder(), torch.ones(3, device="meta")
    with recorder:
        torch.ones(3).to("meta")
        there.copy_(torch.ones(3))
        there[0].mul_(torch.tensor(2.0))
        with pytest.raises(RuntimeError, match="nonzero waits for the device"):
            there.nonzero()
    assert recorder.found == {"operations": 3, "copies": 2, "waits": 1}
    assert device_work.of_a_step("original", torch.float32)["copies"] > 0


def test_the_published_figures_are_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # NaN in empty tensors, which is work (tests/conftest.py)
    document = read("device-work")
    if document["machine"]["torch"] != torch.__version__:
        pytest.skip("they are of another torch")
    steps = {row["who"]: row["step"]["float32"] for row in document["rows"]}
    for who in ("reference", "torch", "cuda, tall"):
        assert device_work.of_a_step(who, torch.float32) == steps[who]
