"""The study of scaling: what a point costs, and the committed lines. No times are judged."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.studies import RESULTS, scaling
from marfast.bench.floors import Floors
from tests.models import tiny_pipeline

LIMITS = {1: Floors({"float32": 1e11, "bfloat16": 2e11}, {1: 1e10}, 1e-6)}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "HEAD", {"rows": 2, "steps": 2, "width": 32, "depth": 1})
    monkeypatch.setattr(scaling, "SHORTEST", 0.0)


def axis(name: str, *values: int) -> scaling.Axis:
    return scaling.Axis(
        "head", name, "step", values, partial(scaling.head_case, name, True), rounds=2
    )


def test_a_row_for_each_point_with_its_cost(needs_native: None) -> None:
    rows = scaling.measure(axis("rows", 1, 4), LIMITS)
    assert [(row["x"], row["dtype"]) for row in rows] == [
        *((1, "float32"), (4, "float32"), (1, "bfloat16"), (4, "bfloat16"))
    ]
    for row in rows:
        multiply_adds = row["rows"] * (3 + 2 + 2) * 32**2  # adaLN (3d + 2)w², MLP 2dw²
        assert row["gflop"] == pytest.approx(2 * multiply_adds / 1e9, rel=1e-3)
        itemsize = 4 if row["dtype"] == "float32" else 2
        assert row["weights_mb"] == pytest.approx(2 * 32**2 * itemsize / 1e6, rel=1e-3)
        p20, p50, p80 = row["ms_p20_p50_p80"]
        assert 0 < p20 <= p50 <= p80


def test_a_loops_cost_is_that_of_its_iterations(needs_native: None) -> None:
    module = tiny_pipeline().model.module
    depth, width = 2, 24
    parts = scaling.loop_parts(module, "float32", batch=3, iterations=5, steps=4, guided=True)
    assert len(parts) == 2 * 5
    heads = [part for part in parts if part.times == 4]
    flops = 4 * sum(part.flops for part in heads)
    assert flops == 2.0 * 4 * 2 * 3 * module.seq_len * (5 * depth + 2) * width**2
    single = scaling.loop_parts(module, "float32", batch=1, iterations=5, steps=4, guided=False)
    assert sum(p.flops for p in parts) == pytest.approx(6 * sum(p.flops for p in single))


@pytest.mark.parametrize("file", sorted(RESULTS.glob("scaling-*.json")), ids=lambda f: f.stem)
def test_committed_fits_are_those_of_the_rows(file: Path) -> None:
    document = json.loads(file.read_text())
    assert document["fits"] == scaling.fits(document["rows"])


def test_threads_are_those_of_before(needs_native: None) -> None:
    before = torch.get_num_threads()
    two = scaling.measure(axis("threads", 1, 2), LIMITS | {2: LIMITS[1]})
    assert torch.get_num_threads() == before
    assert [row["threads"] for row in two] == [1, 2, 1, 2]
