"""Timings and rows as a Python caller takes them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from marfast.bench import head_rows, heads, measure
from marfast.bench.floors import Floors
from marfast.bench.image_rows import varied_settings
from marfast.bench.timing import in_turn, percentiles
from marfast.checkpoints import get_preset
from marfast.errors import ArgumentError


def test_percentiles_are_what_their_names_say() -> None:
    told: list[str] = []
    timing = in_turn({"a": lambda: None, "b": lambda: None}, rounds=11, report=told.append)
    assert {len(seconds) for seconds in timing.seconds.values()} == {11}
    assert told[:3] == ["a, warming up", "b, warming up", "a, round 1 of 11"]
    assert percentiles(np.arange(11.0), 2.0) == [4, 10, 16]


@pytest.mark.slow
def test_every_size_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, **k: compile(f, backend="eager", **k))
    net = heads.draw_head(4, 8, 1, 8)
    sizes = range(1, 20, 2)
    with torch.no_grad():
        for rows in sizes:
            heads.compiled(heads.head_workload(net, rows, 2))()
            assert counters["stats"]["unique_graphs"] >= 1
            counters.clear()
    torch.compiler.reset()


def test_the_originals_own_noise_is_no_error(
    needs_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns the rows of both halves, too."""
    monkeypatch.setattr(heads, "original", lambda *_: lambda: torch.randn(4, 16))
    net = heads.draw_head(16, 64, 2, 48)
    limits = Floors({"float32": 1e11, "bfloat16": 2e11}, {1: 1e10}, 1e-6)
    options = measure.Options(rounds=2, original=object())
    found = head_rows.measure_head("head-b", net, 4, 2, options, limits)
    assert {row["who"]: row["difference"] is None for row in found}["original"]
    assert {row["rounds"] for row in found} == {3}


@pytest.mark.parametrize("change", [{"sampler": "ddim"}, {"guidance_interval": (0.1, 0.9)}])
def test_another_sampler_is_not_measured_as_ddpm(change: dict[str, Any]) -> None:
    known = get_preset("mar_base")
    settings = replace(known.settings, **change)
    with pytest.raises(ArgumentError, match=r"sampler: .* benchmarks take 'ddpm'"):
        varied_settings(settings, known.architecture, None, None)
