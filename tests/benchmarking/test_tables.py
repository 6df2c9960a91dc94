"""Tables show who is in the results, and every line of a table has as many cells as its head."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scaling, tables
from tests.benchmarking.test_pictures import point

OURS = ["cpu float32", "cpu bfloat16"]


def head(who: str) -> dict[str, Any]:
    row = {"workload": "head-b", "rows": 2, "who": who, "share_of_floor": 0.5}
    ratios = {"eager": 2.0, "autocast": 1.5}
    return row | {"ms_a_step_p20_p50_p80": [0.9, 1.0, 1.1], "ratio_to": ratios}


def images(who: str, batch: int) -> dict[str, Any]:
    row = {"workload": "fashion-mnist", "batch": batch, "iterations": 6, "who": who}
    return row | {"images_a_second": 3.0 * batch, "ratio_to": {"eager": 2.0, "autocast": 1.5}}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "IMAGES", tmp_path)
    return tmp_path


def write(folder: Path, name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    (folder / f"{name}-avx2.json").write_text(json.dumps({"rows": rows, **facts}))


def check(text: str) -> None:
    lines = [line for line in text.splitlines() if line.startswith("|") or not line]
    for is_table, table in groupby(lines, key=bool):
        if is_table:
            assert len({line.count("|") for line in table}) == 1, text


@pytest.mark.parametrize("others", [[], ["compile"], ["compile", "original"]])
def test_whoever_was_timed_has_a_column(results: Path, others: list[str]) -> None:
    everybody = ["eager", "autocast", *others]
    write(results, "head", [head(who) for who in [*everybody, *OURS]])
    mine = ["marfast float32", "marfast bfloat16"]
    fashion = [images(who, batch) for batch in (1, 16) for who in [*everybody, *mine]]
    write(results, "fashion-mnist", fashion)
    text = tables.SECTIONS[""]()
    check(text)
    for who in tables.OTHERS:
        assert text.count(f"| {who} |") == (2 if who in everybody else 0)
    assert "\n| 16 |" in text


def test_a_section_without_results_says_so(results: Path) -> None:
    page = "<!-- benchmarks/tables.py: begin head -->\nold\n<!-- benchmarks/tables.py: end -->\n"
    assert "(Not measured yet.)" in tables.rewritten(page)
    assert "old" not in tables.rewritten(page)


def test_scaling_of_head_and_loop(results: Path) -> None:
    rows = [
        point(workload, axis, "float32", x) | {"gflop": 1.0, "weights_mb": 2.0}
        for workload, axis in (("head", "rows"), ("fashion-mnist", "threads"))
        for x in (1, 2, 8)
    ]
    rows = [row | {"share_of_floor": 0.5} for row in rows]
    write(results, "scaling", rows, fits=scaling.fits(rows))
    (results / "scaling-head-avx2.png").touch()
    of_head, of_loop = tables.scaling(loop=False), tables.scaling(loop=True)
    check(of_head)
    check(of_loop)
    assert "a + b R" in of_head
    assert "images/scaling-head-avx2.png" in of_head
    assert "a + b / n" in of_loop
    assert "images/" not in of_loop


def test_kernels_and_runs(results: Path) -> None:
    kernel = {"op": "denoise", "case": "R = 8", "dtype": "float32", "backend": "cpu"}
    kernel |= {"us_p20_p50_p80": [9, 10, 11], "flops_a_byte": 4.0}
    write(results, "roofline", [kernel | {"gflops_a_second": 50.0, "gb_a_second": 12.0}])
    run = {"workload": "head-b", "rows": 2, "who": "eager", "spread_of_medians": 0.01}
    run |= {"ms_a_step_p20_p50_p80": [[0.9, 1.0, 1.1]] * 5, "within": 25, "of": 25}
    write(results, "five-runs", [run], bench=["head-b"])
    for name in ("roofline", "runs"):
        check(tables.SECTIONS[name]())
    assert "5 runs of `marfast bench head-b`" in tables.SECTIONS["runs"]()
