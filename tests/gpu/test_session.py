"""The logic of `make test-gpu`, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.gpu import session
from tests.gpu.session import Step
from tests.limits import HANG


def step(name: str, code: str, **options: tuple[str, ...]) -> Step:
    return Step(name, (sys.executable, "-c", code), **({"needs": ()} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("planned", "status", "states"),
    [
        ([step("a", "print(1)"), step("b", "print(2)")], 0, ["passed", "passed"]),
        ([step("a", "raise SystemExit(4)"), step("b", "print(2)")], 1, ["failed", "passed"]),
        ([step("a", "", needs=("no-such-tool",)), step("b", "")], 3, ["not run", "passed"]),
        ([step("a", "raise SystemExit(1)"), step("b", "", needs=("x",))], 1, ["failed", "not run"]),
    ],
)
def test_each_step_ends_with_its_reason(
    planned: list[Step], status: int, states: list[str], tmp_path: Path
) -> None:
    told: list[str] = []
    out = tmp_path / "session.json"
    assert session.session(planned, HANG, out, told.append) == status
    rows = json.loads(out.read_text())["rows"]
    assert [row["status"] for row in rows] == states
    assert len(told) == len(planned)
    assert all(bool(row["reason"]) == (row["status"] != "passed") for row in rows)


def test_time_that_is_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "session.json"

    now = 0.0

    def out_of_time(command: Any, timeout: float, **_: Any) -> Any:
        nonlocal now
        now += timeout
        raise subprocess.TimeoutExpired(command, timeout, b"begun\n")

    monkeypatch.setattr(session, "commit", lambda: "")
    monkeypatch.setattr(session.subprocess, "run", out_of_time)
    monkeypatch.setattr(session, "time", SimpleNamespace(perf_counter=lambda: now))
    planned = [step("slow", ""), step("after", "")]
    assert session.session(planned, HANG, out, lambda _: None) == 1
    first, second = json.loads(out.read_text())["rows"]
    assert (first["status"], second["status"]) == ("failed", "not run")
    assert "took more than" in first["reason"]
    assert first["printed"] == "begun\n"
    assert second["reason"] == "the time was up"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_claims_to_have_run(tmp_path: Path) -> None:
    planned = [s for s in session.steps() if s.name != "build"]
    out = tmp_path / "session.json"
    assert session.session(planned, HANG, out, lambda _: None) == session.NOT_RUN
    rows = json.loads(out.read_text())["rows"]
    assert {row["status"] for row in rows} == {"not run"}
    assert {"compute-sanitizer racecheck", "tests", "benchmarks"} <= {row["step"] for row in rows}
