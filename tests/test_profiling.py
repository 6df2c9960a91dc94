"""Named ranges: nested in a trace, timed, and nothing where nobody listens."""

import json
from pathlib import Path
from typing import Any

import pytest

from marfast import profiling
from marfast.checkpoints import Settings
from marfast.generation import Pipeline
from marfast.model import FastMAR, KLTokenizer
from marfast.ops.runtime import cpu
from tests import nvtx
from tests.models import LATENT, tiny_autoencoder, tiny_pipeline, tiny_weights


def latent_pipeline() -> Pipeline:
    """With a tokenizer, whose decoder is one more range."""
    module = LATENT.build(steps="4")
    module.load_state_dict(tiny_weights(LATENT), assign=True)
    module.requires_grad_(False)
    tokenizer = KLTokenizer(tiny_autoencoder())
    return Pipeline(FastMAR(module), Settings(num_iter=3, steps=4), tokenizer=tokenizer)


def test_a_trace_has_every_range_and_they_nest(tmp_path: Path) -> None:
    pipeline = latent_pipeline()
    pipeline.generate([1], seed=0)
    file = tmp_path / "trace.json"
    profiling.trace(lambda: pipeline.generate([1, 2], seed=0, cfg=2.0), str(file))
    events = json.loads(file.read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    for event in slices:  # what Chrome's trace format asks of a slice; times in microseconds
        assert {"ph", "ts", "dur", "name", "pid", "tid"} <= event.keys()
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    assert all({"ph", "ts", "name", "pid", "tid"} <= event.keys() for event in events)
    spans: dict[str, list[tuple[float, float]]] = {}
    for event in slices:
        owner, _, name = event["name"].partition("::")
        if owner == profiling.DOMAIN:
            spans.setdefault(name, []).append((event["ts"], event["ts"] + event["dur"]))
    iterations = [spans[f"iteration {k}"] for k in range(3)]
    assert all(len(span) == 1 for span in iterations)
    for name in ("encoder", "decoder", "head"):
        assert len(spans[name]) == 3
        for [(start, end)], (first, last) in zip(iterations, sorted(spans[name]), strict=True):
            assert start <= first <= last <= end, name
    [(decoding, _)] = spans["vae"]
    assert decoding >= iterations[2][0][1]
    if cpu.is_built()[0]:
        assert len(spans["steps 0-3"]) == 3


def test_timers_see_each_phase() -> None:
    pipeline = tiny_pipeline()
    with profiling.timed() as seconds:
        pipeline.generate([1], seed=0, num_iter=2)
    assert {"iteration 0", "iteration 1", "encoder", "decoder", "head"} <= seconds.keys()
    inside = seconds["encoder"] + seconds["decoder"] + seconds["head"]
    assert 0 < inside <= seconds["iteration 0"] + seconds["iteration 1"]


def test_nvtx_gets_names_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Domain:
        def get_event_attributes(self, message: str, payload: int) -> tuple[str, int]:
            return message, payload

        def push_range(self, attributes: tuple[str, int]) -> None:
            seen.append(attributes)

        def pop_range(self) -> None:
            seen.append("end")

    monkeypatch.setattr(profiling, "_nvtx", Domain())
    tiny_pipeline().generate([1, 2], seed=0, num_iter=1, cfg=2.0)
    assert seen[0] == ("iteration 0", 32)
    assert ("encoder", 3 if cpu.is_built()[0] else 4) in seen  # two classes and none
    assert ("head", 64) in seen
    assert seen.count("end") * 2 == len(seen)


@pytest.mark.skipif(bool(nvtx.missing()), reason=nvtx.missing())
def test_a_tool_sees_the_ranges_of_python_and_of_the_kernels_nested() -> None:
    pytest.importorskip("nvtx")
    seen = nvtx.record(
        "from tests.models import tiny_pipeline\n"
        "tiny_pipeline().generate([1, 2], seed=0, num_iter=2, cfg=2.0)\n"
    )
    first, tokens = "marfast:iteration 0", 10
    assert seen[0] == (first, tokens)
    rows = 3 if cpu.is_built()[0] else 4  # two classes and none
    assert (f"{first}/encoder", rows) in seen
    assert (f"{first}/decoder", rows) in seen
    assert ("marfast:iteration 1/decoder", 4) in seen
    assert (f"{first}/head", 2 * tokens) in seen
    assert ("marfast:iteration 1/head", 44) in seen
    if cpu.is_built()[0] and cpu.extension().nvtx:
        assert (f"{first}/head/steps 0-3", 2 * tokens) in seen
        assert (f"{first}/head/steps 0-3/ddpm_sample", tokens) in seen
        # 3 buffer positions of each row; 2 blocks of 4 products
        assert seen.count(nvtx.Seen(f"{first}/encoder/fused_linear", rows * 3)) == 8


def test_it_is_nothing_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_nvtx", None)
    assert profiling.range("a") is profiling.range("b")
