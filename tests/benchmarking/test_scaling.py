"""The study of scaling: costs, fits, resuming. No times are judged."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import scaling
from marfast.bench.floors import Floors
from tests.models import tiny_pipeline

LIMITS = {1: Floors({"float32": 1e11, "bfloat16": 2e11}, {1: 1e10}, 1e-6)}
RESULTS = Path(scaling.__file__).parent / "results"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "HEAD", {"rows": 2, "steps": 2, "width": 32, "depth": 1})
    monkeypatch.setattr(scaling, "SHORTEST", 0.0)
    monkeypatch.setattr(scaling, "all_limits", lambda _: LIMITS)


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


def line(quantity: str, values: list[int]) -> list[dict[str, Any]]:
    measured = scaling.QUANTITIES[quantity][1]
    return [
        {"workload": "head", "axis": quantity, "dtype": "float32", "unit": "step", "x": x}
        | {"ms_p20_p50_p80": [0, 2 + 3 * measured(x), 0]}
        for x in values
    ]


@pytest.mark.parametrize("quantity", scaling.QUANTITIES)
def test_lines_of_synthetic_rows(quantity: str) -> None:
    (found,) = scaling.fits(line(quantity, [1, 2, 4, 8, 16]))
    assert (found["intercept"], found["slope"]) == pytest.approx((2, 3))
    assert found["rms"] < 1e-9
    assert scaling.fits(line(quantity, [4])) == []


@pytest.mark.parametrize("file", sorted(RESULTS.glob("scaling-*.json")), ids=lambda f: f.stem)
def test_committed_fits_are_those_of_the_rows(file: Path) -> None:
    document = json.loads(file.read_text())
    assert document["fits"] == scaling.fits(document["rows"])


def test_finished_axes_are_kept_and_not_run_again(
    needs_native: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "scaling.json"
    interrupt = True
    measured = scaling.measure

    def measure(which: scaling.Axis, limits: dict[int, Floors]) -> Any:
        if interrupt and which.name == "depth":
            raise KeyboardInterrupt
        return measured(which, limits)

    def two(quick: bool) -> Iterator[scaling.Axis]:
        yield axis("rows", 1, 2)
        yield axis("depth", 1, 2)

    monkeypatch.setattr(scaling, "measure", measure)
    monkeypatch.setattr(scaling, "axes", two)
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--out", str(out)])
    with pytest.raises(SystemExit, match="interrupted"):
        scaling.main()
    first = json.loads(out.read_text())
    assert {row["axis"] for row in first["rows"]} == {"rows"}
    interrupt = False
    scaling.main()
    assert "head rows: finished at this commit" in capsys.readouterr().out
    second = json.loads(out.read_text())
    assert second["rows"][: len(first["rows"])] == first["rows"]
    assert {row["axis"] for row in second["rows"]} == {"rows", "depth"}
    assert [*tmp_path.iterdir()] == [out]

    monkeypatch.setattr(scaling, "commit", lambda: "another")
    assert scaling.resumed(out) == []


def test_threads_are_those_of_before(needs_native: None) -> None:
    before = torch.get_num_threads()
    two = scaling.measure(axis("threads", 1, 2), LIMITS | {2: LIMITS[1]})
    assert torch.get_num_threads() == before
    assert [row["threads"] for row in two] == [1, 2, 1, 2]
