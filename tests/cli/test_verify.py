"""`marfast verify`: the report that it prints, and its exit status."""

import json
from pathlib import Path
from typing import Any

import pytest

from marfast import verifying
from marfast.verifying.report import ApproximationRow, Difference, OpRow, Report, Row
from tests.cli.program import invoke

FIGURES = {
    "compared_with": "portable",
    "bit_equal": 0.5,
    "max_ulp": 3,
    "error_max": 2e-7,
    "error_rms": 1e-8,
    "eager_max": 3e-7,
    "eager_rms": 2e-8,
}
EQUAL = Row("orders", 4, 4)
APART = Row("masks", 2, 1, (Difference("L = 49", "1 of 49 numbers, largest 2", 2.0),))
OP = OpRow("ddpm_step", "cpu", "avx2", "cpu", "float32", **FIGURES)
WRONG = OpRow("ddpm_step", "cpu", "portable", "cpu", "float32", **FIGURES, ok=False)
MISSING = OpRow("ddpm_step", "triton", None, "cuda", "float32", reason="no Triton here")


def give(report: Report, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def gather(original: Any, approximations: bool, progress: Any) -> Report:
        asked.append("approximations" if approximations else original)
        progress("orders", 0, 1)
        return report

    monkeypatch.setattr(verifying, "verify", gather)
    return asked


@pytest.mark.parametrize(("row", "status"), [(EQUAL, 0), (APART, 1)])
def test_comparison_with_the_original(
    row: Row, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report((EQUAL, row), original="/there", versions={"torch": "2.13.0"}, seconds=1.5)
    asked = give(report, monkeypatch)
    result = invoke("verify", "--original", "there")
    assert asked == ["there"]
    assert (result.exit_code, result.stderr) == (status, "")
    lines = result.stdout.splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["orders", "4", "4", "yes"],
        [row.what, str(row.cases), str(row.bit_equal), "NO" if status else "yes"],
    ]
    assert ("masks, L = 49: 1 of 49 numbers, largest 2" in lines) == (status == 1)
    assert f"{4 + row.bit_equal} of {4 + row.cases} cases bit-equal" in lines
    assert "1.5 s, torch 2.13.0" in lines


@pytest.mark.parametrize(("row", "status"), [(OP, 0), (WRONG, 1)])
def test_table_of_ops(row: OpRow, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    give(Report(ops=(row, MISSING)), monkeypatch)
    result = invoke("verify")
    assert result.exit_code == status
    lines = result.stdout.splitlines()
    figures = "portable 50.0% 3 2.0e-07 3.0e-07 1.0e-08 2.0e-08"
    named = f"ddpm_step cpu {row.isa} float32"
    assert " ".join(lines[2].split()) == f"{named} {figures} {'NO' if status else 'yes'}"
    assert (
        " ".join(lines[3].split()) == "ddpm_step triton on cuda float32 can't run: no Triton here"
    )
    assert ("1 rows are wrong" in result.stdout) == (status == 1)


def test_table_of_approximations(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ApproximationRow("steps=50-5", 200, rms=0.1234, largest=1.999, accuracy=0.975)
    asked = give(Report(approximations=(row,)), monkeypatch)
    result = invoke("verify", "--approx")
    assert (result.exit_code, result.stderr, asked) == (0, "", ["approximations"])
    assert result.stdout.splitlines()[2].split() == ["steps=50-5", "0.123", "2.00", "97.5%"]


def test_approximations_have_no_original() -> None:
    result = invoke("verify", "--approx", "--original", "there")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--approx: it is measured without --original" in result.stderr


@pytest.mark.parametrize(("row", "status"), [(EQUAL, 0), (APART, 1)])
def test_json(row: Row, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report((row,), original="/there")
    give(report, monkeypatch)
    result = invoke("verify", "--original", "there", "--json")
    assert result.exit_code == status
    assert json.loads(result.stdout) == json.loads(json.dumps(report.to_dict()))


def test_a_path_without_the_original_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        result = invoke("verify", "--original", str(path))
        assert (result.exit_code, result.stdout) == (2, "")
        [line] = result.stderr.splitlines()
        assert line.startswith("error: --original: ")
        assert str(path) in line
