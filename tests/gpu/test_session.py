"""The logic of `make test-gpu`, without a GPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from marfast.bench import heads
from marfast.bench.floors import Floors
from marfast.bench.results import read_rows
from tests.gpu import head_times, image_times, known_answers, one_launch, processes, session
from tests.gpu.rows import BEGAN, LOST, Rows
from tests.gpu.steps import Step, program, steps
from tests.limits import HANG
from tests.models import TINY, tiny_weights


def step(name: str, code: str, **options: Any) -> Step:
    return Step(name, (sys.executable, "-c", code), HANG, **({"needs": ()} | options))


@pytest.mark.parametrize(
    ("planned", "status", "states"),
    [
        ([step("a", "print(1)"), step("b", "print(2)")], 0, ["passed", "passed"]),
        ([step("a", "raise SystemExit(4)"), step("b", "print(2)")], 1, ["failed", "passed"]),
        ([step("a", "", needs=(program("no-such"),)), step("b", "")], 3, ["not run", "passed"]),
        (
            [step("a", "raise SystemExit(1)"), step("b", "", needs=(program("x"),))],
            1,
            ["failed", "not run"],
        ),
    ],
)
def test_each_step_ends_with_its_reason(
    planned: list[Step], status: int, states: list[str], tmp_path: Path
) -> None:
    told: list[str] = []
    assert session.session(planned, HANG, tmp_path / "new", told.append) == status
    rows = read_rows(tmp_path / "new" / "session.json")
    assert [row["status"] for row in rows] == states
    assert len(told) == len(planned)
    assert all(bool(row["reason"]) == (row["status"] != "passed") for row in rows)


def test_time_that_is_up_ends_the_whole_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pid"
    code = f"""
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep({HANG})"])
print("begun")
pathlib.Path({str(file)!r} + ".new").write_text(str(child.pid))
os.replace({str(file)!r} + ".new", {str(file)!r})
time.sleep({HANG})
"""
    wait = subprocess.Popen.wait

    def until_begun(process: Any, timeout: float | None = None) -> int:
        if timeout is None:
            return wait(process)
        while not file.exists():
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("", timeout)

    monkeypatch.setattr(processes.subprocess.Popen, "wait", until_begun)
    planned = [step("slow", code), step("after", "", needs=(program("x"),))]
    assert session.session(planned, HANG, tmp_path, lambda _: None) == 1
    slow, after = read_rows(tmp_path / "session.json")
    assert (slow["status"], after["status"]) == ("failed", "not run")
    assert slow["reason"].startswith("it took more than")
    assert slow["printed"] == "begun\n"
    while is_running(int(file.read_text())):
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_step_begins_when_the_time_is_up(tmp_path: Path) -> None:
    assert session.session([step("a", "")], 0, tmp_path, lambda _: None) == session.NOT_RUN
    (row,) = read_rows(tmp_path / "session.json")
    assert row["reason"] == "the time was up"


@pytest.mark.parametrize("death", [f"sys.exit({LOST})", "os.abort()"])
def test_a_process_that_dies_costs_one_row(death: str, tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from tests.gpu.rows import Rows
rows = Rows(Path({str(tmp_path / "rows.json")!r}))
rows.measure("a", lambda: {{"value": 1}})
rows.measure("b", lambda: {death})
rows.measure("c", lambda: {{"value": 3}})
rows.measure("d", lambda: 1 / 0)
sys.exit(bool(rows.failures()))
"""
    planned = [step("rows", code, resumes=True)]
    assert session.session(planned, HANG, tmp_path, lambda _: None) == 1
    assert read_rows(tmp_path / "rows.json") == [
        {"case": "a", "value": 1},
        {"case": "b", "failed": BEGAN},
        {"case": "c", "value": 3},
        {"case": "d", "failed": "ZeroDivisionError: division by zero"},
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_claims_to_have_run(tmp_path: Path) -> None:
    planned = steps(tmp_path)
    assert [one.name for one in planned if not one.missing()] == ["imports"]
    planned = [one for one in planned if one.missing()]
    assert session.session(planned, HANG, tmp_path, lambda _: None) == session.NOT_RUN
    rows = read_rows(tmp_path / "session.json")
    assert {row["status"] for row in rows} == {"not run"}
    assert {"answers", "head base", "sanitizer racecheck"} <= {row["step"] for row in rows}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_process_of_answers_that_fails_is_a_row(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "answers.json")
    known_answers.ask(rows, "ddpm_step", "triton", HANG)
    (case,) = rows.failures()
    assert case == "ddpm_step triton, the rest"
    assert "CUDA" in rows.rows[case]["failed"]


def test_a_head_is_timed_and_who_cannot_says_why(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "head.json")
    floors = Floors({"float32": 1e9, "bfloat16": 1e9}, {1 << 20: 1e9}, 0.0)
    head_times.measure(rows, "tiny", heads.draw_head(4, 32, 1, 8), [2], 3, floors)
    written = {row["case"]: row for row in json.loads((tmp_path / "head.json").read_text())["rows"]}
    eager = written["tiny, R = 2, float32, eager"]
    assert eager["off"] == 0
    assert min(eager["us_a_step_p20_p50_p80"]) > 0
    if not torch.cuda.is_available():
        assert "noise is on cpu" in written["tiny, R = 2, bfloat16, cuda, tall"]["unable"]
        assert "no CUDA device" in written["tiny, R = 2, float32, eager, graph"]["unable"]
    assert rows.failures() == []


def test_images_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_times, "BACKENDS", ("auto",))
    rows = Rows(tmp_path / "images.json")
    module = TINY.build(steps="3", clip_denoised=True)
    module.load_state_dict(tiny_weights(), assign=True)
    with torch.no_grad():
        image_times.measure(rows, "tiny", module, 2, 2)
    assert rows.failures() == []
    assert all(row["images_a_second"] > 0 for row in rows.rows.values())
    assert [*rows.rows] == ["tiny, B = 2, K = 2, autocast", "tiny, B = 2, K = 2, auto"]


def test_the_first_step_imports_what_the_others_run(tmp_path: Path) -> None:
    first, *others = steps(tmp_path)
    assert "tests/gpu" in first.command
    run = {word for one in others for word in one.command if word.startswith("tests.gpu.")}
    here = (head_times, image_times, known_answers, one_launch)
    assert run == {module.__name__ for module in here}


def test_steps_are_named(capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["session", "--out=/nowhere", "--only=heads"])
    with pytest.raises(SystemExit, match="2"):
        session.main()
    assert "'heads' is no step; known are imports, build, answers" in capfd.readouterr().err
    assert not os.path.exists("/nowhere")
