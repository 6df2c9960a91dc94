"""The pictures of docs/performance.md come from results alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scaling

ROOT = Path(__file__).parents[2]


def point(workload: str, axis: str, dtype: str, x: int) -> dict[str, Any]:
    time = 1.0 + x
    shown = {"x": x, "threads": 2, "unit": "step", "floor_ms": time / 2}
    return {"workload": workload, "axis": axis, "dtype": dtype, **shown} | {
        "ms_p20_p50_p80": [0.9 * time, time, 1.1 * time]
    }


def test_pictures_of_synthetic_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results, out = tmp_path / "results", tmp_path / "pictures"
    results.mkdir()
    rows = [
        point(workload, axis, dtype, x)
        for workload, axis in (("head", "rows"), ("head", "width"), ("fashion-mnist", "batch"))
        for dtype in ("float32", "bfloat16")
        for x in (1, 2, 8)
    ]
    document = {"rows": rows, "fits": scaling.fits(rows)}
    (results / "scaling-avx2.json").write_text(json.dumps(document))
    kernel = {"op": "ddpm_sample", "case": "R = 8", "dtype": "float32", "flops_a_byte": 10.0}
    kernel |= {"us_p20_p50_p80": [9.0, 10.0, 11.0], "gflops_a_second": 50.0}
    limits = {
        "flops": {"float32": 1e11, "bfloat16": 2e11},
        "bandwidth": {1 << 23: 1e11, 9**9: 2e10},
    }
    (results / "roofline-avx2.json").write_text(json.dumps({"rows": [kernel], "floors": limits}))
    command = [sys.executable, str(ROOT / "benchmarks" / "pictures.py")]
    command += ["--results", str(results), "--out", str(out)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    names = ["roofline-avx2.png", "scaling-head-avx2.png", "scaling-loop-avx2.png"]
    assert sorted(file.name for file in out.iterdir()) == names
    for name in names:
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
